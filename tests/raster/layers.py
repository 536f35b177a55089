"""Label rasters to make features of, and features read back."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from raster.rasters import NODATA, PALETTE
from rasterio.features import rasterize
from rasterio.transform import Affine
from skimage import measure

UTM = {'crs': 'EPSG:32633', 'transform': Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
SUFFIXES = ('.gpkg', '.geojson', '.fgb')
COLOURS = ['#{:02x}{:02x}{:02x}'.format(*colour) for colour in PALETTE]


def blobs(height: int = 90, width: int = 120, seed: int = 0, scale: int = 6) -> np.ndarray:
    """Class ids 0 to 2 in patches, with some nodata."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (height // scale + 1, width // scale + 1))
    rows = np.arange(height)[:, None] + rng.integers(-2, 3, (height, width))
    columns = np.arange(width) + rng.integers(-2, 3, (height, width))
    ids = coarse[np.clip(rows, 0, None) // scale % len(coarse),
                 np.clip(columns, 0, None) // scale % coarse.shape[1]]
    ids[:9, :15] = NODATA
    return ids


def read(path: Path, layer: str | None = None) -> tuple[dict, np.ndarray, dict[str, np.ndarray]]:
    """Return what a layer says of itself, its geometries and its fields."""
    meta, _, geometries, columns = pyogrio.raw.read(path, layer=layer)
    return meta, shapely.from_wkb(geometries), dict(zip(meta['fields'], columns))


def draw(polygons: np.ndarray, ids: np.ndarray, shape: tuple[int, int],
         transform: Affine) -> np.ndarray:
    """Draw polygons back to a raster of class ids."""
    return rasterize(zip(polygons, ids), out_shape=shape, fill=NODATA, dtype='uint8',
                     transform=transform)


def count_regions(ids: np.ndarray) -> int:
    return int(measure.label(ids, connectivity=1, background=NODATA).max())


def write_project(path: Path) -> dict[str, bytes]:
    """Write a GeoPackage of somebody's layers; return what is in them."""
    points = shapely.to_wkb(shapely.points(np.arange(20).reshape(10, 2)))
    for layer, crs in (('wells', 'EPSG:4326'), ('polygons of mine', 'EPSG:32750')):
        pyogrio.raw.write(path, points, [np.arange(10)], ['depth'], layer=layer, driver='GPKG',
                          geometry_type='Point', crs=crs)
    return content_of(path)


def content_of(path: Path) -> dict[str, bytes]:
    """Return the rows of each layer but ours."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name: repr(connection.execute(f'select * from "{name}"').fetchall()).encode()
                for name, in connection.execute('select table_name from gpkg_contents')
                if name not in ('polygons', 'centerlines')}
