"""Polygons of the classes of a label raster.

Every 4-connected region of one class is one polygon, however many strips of the raster it was
found in, and neighbouring polygons share their corners. Memory holds the outlines of regions that
the strips read so far have not completed, and the layer that is to be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Callable

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.raster.vector.features_io import (
    LabelRaster,
    LayerWriter,
    check_output,
    check_sizes,
    load,
    open_labels,
    to_map,
)
from bhvit_seg.raster.vector.ground import Ground
from bhvit_seg.raster.vector.regions import Regions
from bhvit_seg.raster.vector.rings import RingTracer

LAYER = 'polygons'
# Numbers of regions, their areas in square metres, and their polygons in pixels.
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def write_vectors(labels: str | Path, out: str | Path, *, min_area: float | None = None,
                  min_pixels: int | None = None, simplify: float | None = None,
                  classes: Sequence[int | str] | None = None,
                  progress: Callable[[float], None] = lambda share: None) -> dict[str, Any]:
    """Write the regions of a label raster as polygons.

    Fields are ``class_id``, ``class`` (its name), ``area_m2`` and ``colour`` (``'#rrggbb'``). The
    area is that of the region's pixels, also where the polygon is simplified; see
    :mod:`bhvit_seg.raster.vector.ground` for what it means in which CRS. Rasters without a CRS give
    ``area_px``, a number of pixels, instead, and coordinates in their transform's units (pixels
    where they have none).

    Args:
        labels: Raster of class ids; its nodata value gives no polygons.
        out: A GeoPackage (``.gpkg``, which is replaced; the layer is named ``polygons``), GeoJSON
            (``.geojson``, in WGS 84) or FlatGeobuf (``.fgb``).
        min_area: Smallest area of a polygon, in square metres. What is smaller becomes part of the
            neighbouring class that it shares the longest border with, whatever ``classes`` are
            asked for; surrounded by nodata it is left out.
        min_pixels: The same in pixels.
        simplify: Leave out details smaller than about this many metres (map units without a CRS).
            Borders of neighbours stay the same, so there are no gaps; needs shapely 2.1, and all
            polygons in memory.
        classes: Ids or names of the classes to write, all by default.
        progress: Called with the share of the work that is done, 0 to 1.

    Returns:
        dict: ``counts`` and ``areas`` (square metres, or pixels without a CRS) by class name.

    Raises:
        UserError: The raster cannot be read or the file not written, a package is missing, there is
            no such class, or an area in square metres is asked for where there is no CRS.
    """
    out = Path(out)
    check_output(out)
    shapely = load('shapely')
    load('skimage.measure')
    check_sizes(min_area=min_area, min_pixels=min_pixels, simplify=simplify)
    if min_area is not None and min_pixels is not None:
        raise UserError(f'min_area={min_area} and min_pixels={min_pixels} are both given: give one '
                        'of them')
    if simplify is not None and not hasattr(shapely, 'coverage_simplify'):
        raise UserError(f'simplify={simplify} needs shapely 2.1 or later, here is '
                        f"{shapely.__version__}: pip install -U 'bhvit_seg[vector]' on Python 3.10 "
                        'or later, or leave simplify out')
    with open_labels(labels) as raster:
        ground = Ground(raster.dataset.crs, raster.dataset.transform, raster.shape)
        if min_area is not None and not ground.known:
            raise UserError(f'{raster.path} has no CRS, so min_area={min_area} m² cannot be '
                            'measured: give min_pixels, or a raster with a CRS')
        chosen = raster.choose(classes)
        area_field = 'area_m2' if ground.known else 'area_px'
        writer = LayerWriter(out, LAYER, 'Polygon', {
            'class_id': np.int32, 'class': object, area_field: np.float64, 'colour': object},
            raster, ground)
        # Every strip is read twice.
        steps = 2 * len(raster.strips)
        done = count(1)

        def on_strip() -> None:
            progress(next(done) / steps)

        regions = Regions(
            raster, chosen, min_area or min_pixels or 0,
            (lambda row: 1.0) if min_area is None else ground.pixel_area, on_strip)
        batches = _trace(raster, ground, regions, on_strip)
        if simplify is not None:
            batches = _simplify(batches, ground.metres_per_pixel, simplify)
        counts: Counter[str] = Counter()
        areas: Counter[str] = Counter()
        for numbers, sizes, polygons in batches:
            ids = regions.classes[numbers].tolist()
            names = [raster.name(class_id) for class_id in ids]
            sizes = sizes if ground.known else regions.pixels[numbers]
            counts.update(names)
            for name, size in zip(names, sizes.tolist()):
                areas[name] += size
            writer.add(to_map(polygons, raster.dataset.transform), {
                'class_id': ids, 'class': names, area_field: sizes,
                'colour': [raster.colours.get(class_id) for class_id in ids]})
        writer.write()
    return {'counts': dict(counts), 'areas': dict(areas)}


def _trace(raster: LabelRaster, ground: Ground, regions: Regions,
           on_strip: Callable[[], None]) -> Iterator[Batch]:
    """Yield regions as they are complete: numbers, areas in m², and polygons in pixels."""
    tracer = RingTracer(raster.shape[1])
    by_strip = np.argsort(regions.last_strip[1:], kind='stable') + 1
    strips = len(raster.strips)
    complete = np.searchsorted(regions.last_strip[by_strip], np.arange(-1, strips), side='right')
    for strip in range(strips):
        tracer.add(regions.read(strip))
        on_strip()
        # The lower edges of regions that end with a strip are those of the next one.
        if strip:
            yield _polygons(by_strip[complete[strip - 1]:complete[strip]], tracer, ground)
    tracer.finish()
    yield _polygons(by_strip[complete[strips - 1]:], tracer, ground)


def _polygons(numbers: np.ndarray, tracer: RingTracer, ground: Ground) -> Batch:
    """Build the polygons of complete regions, whose numbers ascend."""
    import shapely

    points, starts, owners = tracer.take(numbers.tolist())
    areas = ground.ring_areas(points, starts)
    position = np.searchsorted(numbers, owners)
    rings = shapely.linearrings(
        points.astype(np.float64),
        indices=np.repeat(np.arange(len(starts)), np.diff(starts, append=len(points))))
    # The outer ring of each polygon has to come first.
    order = np.lexsort((areas < 0, position))
    polygons = shapely.polygons(rings[order], indices=position[order])
    return numbers, np.bincount(position, areas, len(numbers)), polygons


def _simplify(batches: Iterator[Batch], to_ground: np.ndarray, tolerance: float) -> Iterator[Batch]:
    """Yield all regions at once, with simpler borders; each corner that is left stays in place."""
    import shapely

    numbers, sizes, polygons = map(np.concatenate, zip(*batches))
    polygons = shapely.transform(polygons, lambda points: points @ to_ground.T)
    polygons = shapely.coverage_simplify(polygons, tolerance)
    to_pixels = np.linalg.inv(to_ground).T
    yield numbers, sizes, shapely.transform(polygons, lambda points: np.rint(points @ to_pixels))
