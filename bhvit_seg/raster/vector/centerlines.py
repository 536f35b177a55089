"""Centre lines of long and thin classes, from the skeleton of the whole raster, held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from bhvit_seg.errors import load_package
from bhvit_seg.raster.vector.features_io import (
    LabelRaster,
    LayerWriter,
    check_output,
    check_place,
    check_sizes,
    open_labels,
)
from bhvit_seg.raster.vector.geodesy import Geodesy
from bhvit_seg.raster.vector.line_graph import LineGraph
from bhvit_seg.raster.vector.line_shapes import shape_lines
from bhvit_seg.raster.vector.skeletons import skeletonize, usual_width

LAYER = 'centerlines'
TOLERANCE = 0.5  # in cells: enough to remove the steps of cells from a line
SHORTEST = 2  # smallest length of isolated lines, in widths
FIRST_PASS = 0.1  # fraction of the work that measuring the width of a class takes


def centerlines_path(out: str | Path) -> Path:
    """Return the file of centre lines beside polygons in ``out``, for GeoPackages the same."""
    out = Path(out)
    if out.suffix.lower() == '.gpkg':
        return out
    return out.with_name(f'{out.stem}_{LAYER}{out.suffix}')


def write_centerlines(labels: str | Path, out: str | Path, classes: Sequence[int | str], *,
                      min_length: float | None = None, simplify: float | None = None,
                      progress: Callable[[float], None] = lambda share: None) -> dict[str, Any]:
    """Write the centre lines of classes of a label raster.

    Lines end at junctions, where the class ends, and at the raster's edge; a ring without junctions
    is a closed line. Spurs not longer than the local width are left out, and so are patches less
    than twice as long as wide. Fields are ``class_id``, ``class`` (its name), ``length_m``,
    ``width_m`` (mean) and ``colour``; without a CRS ``length_px`` and ``width_px``.

    Args:
        labels: Raster of class ids.
        out: The file of the polygons, which need not exist, see :func:`centerlines_path`; in a
            GeoPackage the layer is ``centerlines``.
        classes: Ids or names of the classes.
        min_length: Smallest length of isolated lines, in metres (map units without a CRS); by
            default twice the usual width of the class.
        simplify: Tolerance of the lines in metres (map units without a CRS); by default half a
            pixel, or more where the class is many pixels wide.
        progress: Called with the finished fraction, 0 to 1.

    Returns:
        ``counts`` and ``lengths`` (metres, or pixels without a CRS) by class name.

    Raises:
        UserError: The raster cannot be read or the file not written, a package is missing, or there
            is no such class.
    """
    out = centerlines_path(out)
    check_output(out)
    load_package('shapely')
    load_package('skimage.morphology')
    check_sizes(min_length=min_length, simplify=simplify)
    with open_labels(labels) as raster:
        chosen = raster.choose(classes)
        geodesy = check_place(raster.dataset, out)
        unit = 'm' if geodesy.known else 'px'
        writer = LayerWriter(out, LAYER, 'LineString', [f'length_{unit}', f'width_{unit}'], raster,
                             geodesy)
        for position, class_id in enumerate(chosen):
            lines, lengths, widths = _find_lines(
                raster, class_id, geodesy, min_length, simplify,
                lambda share, before=position: progress((before + share) / len(chosen)))
            writer.add(lines, [class_id] * len(lines), lengths, widths)
        writer.write()
    names = [raster.name(class_id) for class_id in chosen]
    return {'counts': {name: writer.counts[name] for name in names},
            'lengths': {name: float(writer.sums[name]) for name in names}}


def _find_lines(raster: LabelRaster, class_id: int, geodesy: Geodesy, min_length: float | None,
                simplify: float | None, progress: Callable[[float], None],
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lines of a class in pixels, and their lengths and widths in metres (or pixels)."""
    import shapely

    width = usual_width(raster, class_id, lambda share: progress(FIRST_PASS * share))
    skeleton = skeletonize(raster, class_id, width,
                           lambda share: progress(FIRST_PASS + (1 - FIRST_PASS) * share))
    graph = LineGraph(skeleton)
    graph.prune()
    pixel = geodesy.pixel_side
    shortest = SHORTEST * width if min_length is None else min_length / pixel
    shaped = shape_lines(graph, width / skeleton.scale, shortest / skeleton.scale)
    tolerance = TOLERANCE * skeleton.scale if simplify is None else simplify / pixel
    lines = shapely.simplify(
        [shapely.LineString(line.points * skeleton.scale) for line in shaped], tolerance)
    lines, parts = shapely.get_parts(
        shapely.intersection(lines, shapely.box(0, 0, *raster.shape[::-1])), return_index=True)
    # A line may touch an edge in a point.
    is_line = shapely.length(lines) > 0
    lines, parts = lines[is_line], parts[is_line]
    widths = 2 * skeleton.scale * np.array([line.radii.mean() for line in shaped])[parts]
    if not geodesy.known:
        return lines, shapely.length(lines), widths
    pieces = [shapely.get_coordinates(line) for line in lines]
    sides = [np.sqrt(geodesy.areas_at(points).mean()) for points in pieces]
    return lines, np.array([geodesy.length(points) for points in pieces]), widths * sides
