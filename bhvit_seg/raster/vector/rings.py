"""Outlines of regions along the edges of pixels.

An outline has its region on the right. Where a region touches itself at a corner only, the outline
turns left, around what lies between, so that rings never touch themselves and polygons are valid.
Outlines have a corner wherever a third region begins too, so neighbours share all corners, and
still fit after they are reprojected or simplified.

``rasterio.features.shapes`` needs a raster of region numbers in memory, and each pixel's corner
added, by ``shapely.segmentize``, for neighbours to share corners: more than twice the time, and 1.4
times the corners, on 3,000 × 3,000 noisy labels; simplifying them then takes 1.5 times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np


class Rings(NamedTuple):
    """Closed outlines, by region; the outer ring of a region comes before its holes.

    Attributes:
        points: (n, 2) int32, (column, row) of the corners of all rings, outer ones clockwise on
            the screen; the first one is not repeated.
        starts: Index of each ring's first corner.
        regions: The region of each ring, ascending.
    """

    points: np.ndarray
    starts: np.ndarray
    regions: np.ndarray


def trace_rings(strips: Iterable[np.ndarray], width: int) -> Rings:
    """Trace the outlines of regions.

    Args:
        strips: The region of each pixel, int32 (h, width), 0 for none, from the top down.
        width: Columns of the raster.
    """
    last_row, top, parts = np.zeros((1, width + 2), np.int32), 0, []
    for strip in chain(strips, [np.zeros((1, width), np.int32)]):
        rows = np.concatenate([last_row, np.pad(strip, ((0, 0), (1, 1)))])
        parts += _find_corners(rows, top)
        last_row, top = rows[-1:].copy(), top + len(strip)
    regions, points, *turns = map(np.concatenate, zip(*parts))
    del parts
    if not len(regions):
        return Rings(points, np.empty(0, np.int64), regions)
    # Along a line, outlines in one direction leave a corner and reach the next one in turn.
    reached, left = (np.argsort(_places(points, direction)) for direction in turns)
    following = np.empty(len(regions), np.int32)
    following[left] = reached
    del reached, left, turns
    first, order = _follow(following)
    points, first = points[order], first[order]
    starts = np.flatnonzero(np.append(True, first[1:] != first[:-1]))
    regions = regions[first[starts]]
    # Rings in the order of their regions, outer ones first.
    order = np.lexsort((_areas(points, starts) < 0, regions))
    sizes = np.diff(starts, append=len(points))[order]
    moved = np.cumsum(np.append(0, sizes))[:-1]
    index = np.arange(len(points)) + np.repeat(starts[order] - moved, sizes)
    return Rings(points[index], moved, regions[order])


def _find_corners(rows: np.ndarray, top: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield corners: region, (column, row), and the directions in which outlines come and go on.

    Directions are 0 to 3: east, south, west, north. ``rows`` (h + 1, w + 2) of regions begin and
    end with a column of zeros; the row of their first corners is ``top``.
    """
    above, below = rows[:-1], rows[1:]
    differs = above != below
    row, column = np.nonzero(differs[:, :-1] | differs[:, 1:] | (below[:, :-1] != below[:, 1:]))
    points = np.stack([column, row + top], axis=1).astype(np.int32)
    # The four pixels around a corner, clockwise.
    around = [above[row, column], above[row, column + 1], below[row, column + 1],
              below[row, column]]
    for direction in range(4):
        left_behind, left_ahead, right_ahead, own = (
            around[(direction + i) % 4] for i in range(4))
        turn = np.where(left_ahead == own, -1, np.where(right_ahead == own, 0, 1)).astype(np.int8)
        corners = np.flatnonzero((own != 0) & (left_behind != own)
                                 & ((turn != 0) | (left_behind != left_ahead)))
        yield (own[corners], points[corners], np.full(len(corners), direction, np.int8),
               (turn[corners] + direction) % 4)


def _places(points: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return numbers that sort corners by a direction, the line along it, and the place there."""
    column, row = points.T.astype(np.int64)
    vertical = direction % 2 == 1
    return (direction.astype(np.int64) << 60 | np.where(vertical, column, row) << 30
            | np.where(vertical, row, column))


def _follow(following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest index in the ring of each corner, and the order of corners ring by ring."""
    own = np.arange(len(following), dtype=np.int32)
    # Jumps get twice as long each time.
    first, jump = own, following
    while True:
        lower = np.minimum(first, first[jump])
        if (lower == first).all():
            break
        first, jump = lower, jump[jump]
    is_last = following == first
    jump = np.where(is_last, own, following)
    to_last = (~is_last).astype(np.int32)
    while not is_last[jump].all():
        to_last += to_last[jump]
        jump = jump[jump]
    return first, np.lexsort((-to_last, first))


def _areas(points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the areas of rings in pixels, negative where they are not clockwise on the screen."""
    # From each ring's own first corner: products of large coordinates would drown small rings.
    sizes = np.diff(starts, append=len(points))
    x, y = (points - np.repeat(points[starts], sizes, axis=0)).astype(np.float64).T
    after = np.arange(1, len(points) + 1)
    after[np.append(starts[1:], len(points)) - 1] = starts
    return np.add.reduceat(x * y[after] - x[after] * y, starts) / 2
