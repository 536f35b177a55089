"""Polygons, one for each 4-connected region of one class, which share corners with neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Callable

import numpy as np

from bhvit_seg.errors import UserError, load_package
from bhvit_seg.raster.vector.features_io import (
    LayerWriter,
    check_output,
    check_place,
    check_sizes,
    open_labels,
)
from bhvit_seg.raster.vector.regions import Regions
from bhvit_seg.raster.vector.rings import Rings, trace_rings

LAYER = 'polygons'
POLYGONS_AT_ONCE = 10_000


def write_vectors(labels: str | Path, out: str | Path, *, min_area: float | None = None,
                  min_pixels: int | None = None, simplify: float | None = None,
                  classes: Sequence[int | str] | None = None,
                  progress: Callable[[float], None] = lambda share: None) -> dict[str, Any]:
    """Write the regions of a label raster as polygons.

    Fields are ``class_id``, ``class`` (its name), ``area_m2`` (of the pixels, before
    simplification, see :mod:`bhvit_seg.raster.vector.geodesy`) and ``colour`` (``'#rrggbb'``).
    Rasters without a CRS give ``area_px``, a number of pixels, and coordinates in their transform's
    units.

    Args:
        labels: Raster of class ids; its nodata value gives no polygons.
        out: GeoPackage (``.gpkg``: the layer ``polygons`` is replaced, others are kept), GeoJSON
            (``.geojson``, in WGS 84) or FlatGeobuf (``.fgb``), which are replaced.
        min_area: Smallest area in square metres. Smaller regions, of any class, are merged into the
            neighbouring class with the longest common border; surrounded by nodata they are left
            out.
        min_pixels: The same in pixels.
        simplify: Tolerance in metres (map units without a CRS); neighbours keep common borders.
            Needs shapely 2.1, and memory for all polygons.
        classes: Ids or names of the classes to write, all by default.
        progress: Called with the finished fraction, 0 to 1.

    Returns:
        ``counts`` and ``areas`` (square metres, or pixels without a CRS) by class name.

    Raises:
        UserError: The raster cannot be read or the file not written, a package is missing, there is
            no such class, or ``min_area`` is given without a CRS.
    """
    out = Path(out)
    check_output(out)
    shapely = load_package('shapely')
    load_package('skimage.measure')
    check_sizes(min_area=min_area, min_pixels=min_pixels, simplify=simplify)
    if min_area is not None and min_pixels is not None:
        raise UserError(f'min_area={min_area} and min_pixels={min_pixels} are both given: give one '
                        'of them')
    if simplify is not None and not hasattr(shapely, 'coverage_simplify'):
        raise UserError(f'simplify={simplify} needs shapely 2.1 or later, here is '
                        f'{shapely.__version__}: pip install "shapely>=2.1" on Python 3.10 or '
                        'later, or leave simplify out')
    with open_labels(labels) as raster:
        geodesy = check_place(raster.dataset, out)
        if min_area is not None and not geodesy.known:
            raise UserError(f'{raster.path} has no CRS, so min_area={min_area} m² cannot be '
                            'measured: give min_pixels, or a raster with a CRS')
        chosen = raster.choose(classes)
        writer = LayerWriter(out, LAYER, 'Polygon', ['area_m2' if geodesy.known else 'area_px'],
                             raster, geodesy)
        # Every strip is read twice.
        steps = 2 * len(raster.strips)
        done = count(1)
        regions = Regions(raster, chosen, geodesy.pixel_areas, min_area or 0, min_pixels or 0,
                          lambda: progress(next(done) / steps))

        def read() -> Iterator[np.ndarray]:
            for strip in range(len(raster.strips)):
                yield regions.read(strip)
                progress(next(done) / steps)

        rings = trace_rings(read(), raster.shape[1])
        # Simplified borders have to be those of all neighbours.
        several = None if simplify is not None else POLYGONS_AT_ONCE
        for numbers, polygons in _polygons(rings, len(regions.classes), several):
            if simplify is not None:
                polygons = _simplify(polygons, geodesy.metres_per_pixel, simplify)
            writer.add(polygons, regions.classes[numbers].tolist(),
                       (regions.areas if geodesy.known else regions.pixels)[numbers])
        writer.write()
    return {'counts': dict(writer.counts), 'areas': dict(writer.sums)}


def _polygons(rings: Rings, end: int, several: int | None
              ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the numbers of regions, from 1 and below ``end``, and their polygons in pixels."""
    import shapely

    bounds = np.append(rings.starts, len(rings.points))
    for first in range(1, end, several or end):
        numbers = np.arange(first, min(first + (several or end), end))
        start, stop = np.searchsorted(rings.regions, (first, numbers[-1] + 1))
        lines = shapely.linearrings(
            rings.points[bounds[start]:bounds[stop]].astype(np.float64),
            indices=np.repeat(np.arange(stop - start), np.diff(bounds[start:stop + 1])))
        yield numbers, shapely.polygons(lines, indices=rings.regions[start:stop] - first)


def _simplify(polygons: np.ndarray, to_metres: np.ndarray, tolerance: float) -> np.ndarray:
    """Return polygons with simplified borders, whose corners are some of the former ones."""
    import shapely

    polygons = shapely.transform(polygons, lambda points: points @ to_metres.T)
    polygons = shapely.coverage_simplify(polygons, tolerance)
    to_pixels = np.linalg.inv(to_metres).T
    polygons = shapely.transform(polygons, lambda points: np.rint(points @ to_pixels))
    # GEOS may move a hole up to the outer ring or another hole, along an edge.
    touching = np.flatnonzero(~shapely.is_valid(polygons))
    apart = shapely.make_valid(polygons[touching], method='structure', keep_collapsed=False)
    whole = shapely.get_type_id(apart) == shapely.GeometryType.POLYGON
    polygons[touching[whole]] = apart[whole]
    return polygons
