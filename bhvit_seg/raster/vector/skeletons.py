"""The skeleton of a class in a raster of any size, found tile by tile.

Tiles overlap by more than roads are wide, so that the skeleton of a tile's core equals that of the
whole raster. Wider places may be thinned differently in two tiles; line ends at a seam are then
linked within the same patch. A class that is many pixels wide is thinned at a lower resolution, as
fine details of its border would only add spurs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Callable

import numpy as np

from bhvit_seg.raster.vector.regions import components

if TYPE_CHECKING:
    from bhvit_seg.raster.vector.features_io import LabelRaster

# In cells, the pixels or squares of pixels that are thinned.
TILE = 1024
HALO = 128
USUAL_WIDTH = 12
PADDING = 64  # around the raster, where the class is continued beyond the edges
LONGEST_CUT = 4  # a class that an edge cuts over more than this many widths runs along the edge
# Outlines along pixels are longer than smooth ones, by this factor on average over directions.
STAIRCASE = 4 / np.pi


@dataclass(frozen=True)
class Skeleton:
    scale: int  # pixels along a cell's side
    size: tuple[int, int]  # (height, width) of the raster in cells
    cells: np.ndarray  # (n, 2) row and column, sorted; up to PADDING cells beyond the raster
    radii: np.ndarray  # (n,) distance to the nearest border, in cells
    pairs: np.ndarray  # (m, 2) indices of cells that are neighbours in a line


def usual_width(labels: LabelRaster, class_id: int, progress: Callable[[float], None]) -> float:
    """Return the width in pixels of a long strip with the area and outline of a class."""
    area = outline = 0
    above = None
    for rows in labels.strips:
        mask = labels.read(rows) == class_id
        area += np.count_nonzero(mask)
        outline += (np.count_nonzero(mask[1:] != mask[:-1])
                    + np.count_nonzero(mask[:, 1:] != mask[:, :-1]))
        if above is not None:
            outline += np.count_nonzero(mask[0] != above)
        above = mask[-1]
        progress(rows.stop / labels.shape[0])
    return STAIRCASE * 2 * area / max(outline, 1)


def skeletonize(labels: LabelRaster, class_id: int, width: float,
                progress: Callable[[float], None]) -> Skeleton:
    """Return the skeleton of a class that is usually ``width`` pixels wide, without holes smaller
    than a square of that width, such as cars."""
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import skeletonize as thin

    scale = max(1, int(width / USUAL_WIDTH))
    read = partial(_read_cells, labels, class_id, scale, LONGEST_CUT * width / scale)
    size = tuple(-(-side // scale) for side in labels.shape)
    cells, radii = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    # Where the cores of tiles begin and end; the outermost ones have the padding too.
    cuts = [[-PADDING, *range(TILE, side, TILE), side + PADDING] for side in size]
    for top, bottom in zip(cuts[0], cuts[0][1:]):
        for left, right in zip(cuts[1], cuts[1][1:]):
            mask = read((top - HALO, left - HALO), (bottom + HALO, right + HALO))
            core = slice(HALO, HALO + bottom - top), slice(HALO, HALO + right - left)
            # Where all is the class, there is no border to measure from.
            if not mask[core].any() or mask.all():
                continue
            _fill_holes(mask, (width / scale) ** 2)
            distances = distance_transform_edt(mask)
            found = np.argwhere(thin(mask)[core])
            cells.append(found + (top, left))
            # Distances end in the middle of the next cell, not at its border.
            radii.append(distances[core][tuple(found.T)].astype(np.float32) - 0.5)
        progress(min(1, bottom / size[0]))
    joined, sizes = np.concatenate(cells), np.concatenate(radii)
    order = np.lexsort(joined.T[::-1])
    joined, sizes = joined[order], sizes[order]
    return Skeleton(scale, size, joined, sizes, _pairs(joined, sizes))


def _read_cells(labels: LabelRaster, class_id: int, scale: int, longest_cut: float,
                first: tuple[int, int], stop: tuple[int, int]) -> np.ndarray:
    """Return which cells of a window are a class, bool (h, w). Beyond the raster's edges it
    continues straight on, unless an edge cuts more than ``longest_cut`` cells of it."""
    rows, columns = (range(max(start, 0), min(end, -(-side // scale)))
                     for start, end, side in zip(first, stop, labels.shape))
    pixels = labels.read(*(range(cells.start * scale, min(cells.stop * scale, side))
                           for cells, side in zip((rows, columns), labels.shape))) == class_id
    missing = [(0, len(cells) * scale - side) for cells, side in zip((rows, columns), pixels.shape)]
    squares = np.pad(pixels, missing, mode='edge').reshape(len(rows), scale, len(columns), scale)
    mask = np.zeros([end - start for start, end in zip(first, stop)], bool)
    inside = tuple(slice(cells.start - start, cells.stop - start)
                   for cells, start in zip((rows, columns), first))
    mask[inside] = squares.sum(axis=(1, 3)) * 2 >= scale**2
    # The second time for the columns.
    for turned, (along, across) in ((mask, inside), (mask.T, inside[::-1])):
        turned[:along.start, across] = _cut(turned[along.start, across], longest_cut)
        turned[along.stop:, across] = _cut(turned[along.stop - 1, across], longest_cut)
    return mask


def _cut(line: np.ndarray, longest: float) -> np.ndarray:
    """Return which of the cells along an edge are continued beyond it."""
    changes = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0))
    continued = line.copy()
    for start, stop in changes.reshape(-1, 2).tolist():
        if stop - start > longest:
            continued[start:stop] = False
    return continued


def _fill_holes(mask: np.ndarray, largest: float) -> None:
    from skimage.measure import label

    holes = label(~mask, connectivity=1)
    small = np.bincount(holes.ravel()) < largest
    small[0] = False
    mask |= small[holes]


def _pairs(cells: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Pair sorted cells (n, 2) that touch, and line ends at seams across them."""
    if not len(cells):
        return np.empty((0, 2), np.int64)
    width = np.ptp(cells[:, 1]) + 3
    places = cells[:, 0] * width + cells[:, 1]

    def find(step: int) -> np.ndarray:
        """Return the index of the cell at a step from each, -1 where there is none."""
        found = np.minimum(np.searchsorted(places, places + step), len(places) - 1)
        return np.where(places[found] == places + step, found, -1)

    east, south, west = find(1), find(width), find(-1)
    neighbours = [
        east, south,
        # Diagonal neighbours only where no other cell connects them.
        np.where((east < 0) & (south < 0), find(width + 1), -1),
        np.where((west < 0) & (south < 0), find(width - 1), -1)]
    index = np.arange(len(cells))
    pairs = np.concatenate([np.stack([index, found], axis=1)[found >= 0] for found in neighbours])
    return np.unique(np.concatenate([pairs, *_seam_pairs(cells, radii, pairs)]), axis=0)


def _seam_pairs(cells: np.ndarray, radii: np.ndarray, pairs: np.ndarray) -> Iterator[np.ndarray]:
    """Pair line ends near a seam with the nearest cell beyond it, where tiles disagree."""
    from scipy.spatial import cKDTree

    ends = np.bincount(pairs.ravel(), minlength=len(cells)) < 2
    for axis in (0, 1):
        after = cells[:, axis] % TILE
        before = TILE - 1 - after
        to_seam = np.minimum(before, after)
        reach = 2 * radii[ends & (to_seam < 2 * radii)].max(initial=0)
        inside = pairs[(to_seam[pairs] <= reach).all(axis=1)]
        _, parts = components(len(cells), *inside.T)
        for here, there in ((before, after), (after, before)):
            near, far = np.flatnonzero(ends & (here < 2 * radii)), np.flatnonzero(there <= reach)
            if not len(near) or not len(far):
                continue
            distances, nearest = cKDTree(cells[far]).query(cells[near])
            found = far[nearest]
            # Their circles, all class, overlap, and no line near the seam connects them.
            lost = (distances < radii[near] + radii[found]) & (parts[near] != parts[found])
            yield np.sort(np.stack([near[lost], found[lost]], axis=1), axis=1)
