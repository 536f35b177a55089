"""Outlines of regions, traced strip by strip along the edges of pixels.

Between two rows of pixels the edges where two regions meet are cut into runs with one region above
and one below. A region's outline takes its runs eastward where it lies below, westward where it
lies above, so that it is always on the right hand. Runs are linked by the vertical edges between
their ends: of the ends in one column that bound regions on the same side, sorted by row, each two
belong to one vertical edge. An outline that has not closed at the end of a strip waits as a chain,
whose two ends are linked by the strips that follow.

Runs end wherever a third region begins, so neighbours share all their corners: they still fit when
they are reprojected or simplified. Where a region touches itself at a corner only, outlines turn
left, around what lies between; rings then never meet themselves, and polygons are valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

# Where an outline goes on from the end of a run: along the vertical edge upward or downward of it,
# which has the region to its west or to its east; or straight on along the next run.
WEST_UP, WEST_DOWN, EAST_UP, EAST_DOWN = 0, 1, 2, 3
STRAIGHT = -1
NONE = -1


class RingTracer:
    """Traces the outlines of regions.

    Args:
        width: Columns of the raster.
    """

    def __init__(self, width: int) -> None:
        self._last_row = np.zeros((1, width + 2), np.int32)
        self._top = 0
        # One run stands for each open chain.
        self._open = _Runs.none()
        self._chains: list[list] = []
        self._rings: dict[int, list[np.ndarray]] = {}

    def add(self, regions: np.ndarray) -> None:
        """Trace what the next rows add: the region of each pixel, int32 (h, w), 0 for none."""
        rows = np.concatenate([self._last_row, np.pad(regions, ((0, 0), (1, 1)))])
        runs = self._open.then(_find_runs(rows, self._top))
        _link(runs)
        self._collect(runs)
        self._last_row = rows[-1:].copy()
        self._top += len(regions)

    def finish(self) -> None:
        """Trace the lower edges of the last row."""
        self.add(np.zeros((1, self._last_row.shape[1] - 2), np.int32))
        assert not self._chains

    def take(self, regions: Iterable[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return and forget the rings of regions that lie wholly in rows that are traced.

        Returns:
            Corners of all rings, int32 (n, 2) of (column, row), outer rings clockwise on the
            screen; the index of each ring's first corner; the region of each ring.
        """
        rings = [(region, ring) for region in regions for ring in self._rings.pop(region)]
        sizes = [len(ring) for _, ring in rings]
        return (np.concatenate([np.empty((0, 2), np.int32), *(ring for _, ring in rings)]),
                np.cumsum([0, *sizes])[:-1],
                np.array([region for region, _ in rings], np.int64))

    def _collect(self, runs: _Runs) -> None:
        """Put runs that follow each other together: to rings, or to chains that stay open."""
        chains, waiting, ends = self._chains, [], []
        for order, is_open in _walk(runs.following):
            parts = list(_parts(order, chains, runs.points))
            if is_open:
                waiting.append(parts)
                ends.append((order[0], order[-1]))
            else:
                ring = np.concatenate(list(_flatten(parts)))
                changed = (ring != np.roll(ring, 1, axis=0)).any(axis=1)
                region = int(runs.regions[order[0]])
                self._rings.setdefault(region, []).append(ring[changed])
        self._chains = waiting
        heads, tails = np.array(ends, np.int64).reshape(-1, 2).T
        self._open = _Runs(
            runs.regions[heads],
            np.stack([runs.points[heads, 0], runs.points[tails, 1]], axis=1),
            np.stack([runs.turns[heads, 0], runs.turns[tails, 1]], axis=1),
            np.full(len(heads), NONE))


class _Runs(NamedTuple):
    """Runs in the order that outlines take them: start first.

    Attributes:
        regions: (n,) the region on the right hand.
        points: (n, 2, 2) int32, (column, row) of the start and the end.
        turns: (n, 2) how the outline comes to the start, and goes on from the end.
        following: (n,) index of the run that comes next, as far as it is known.
    """

    regions: np.ndarray
    points: np.ndarray
    turns: np.ndarray
    following: np.ndarray

    @classmethod
    def none(cls) -> _Runs:
        return cls(np.empty(0, np.int32), np.empty((0, 2, 2), np.int32),
                   np.empty((0, 2), np.int64), np.empty(0, np.int64))

    def then(self, others: _Runs) -> _Runs:
        """Return these runs followed by others."""
        shifted = np.where(others.following == NONE, NONE, others.following + len(self.regions))
        return _Runs(*map(np.concatenate, zip(self, others._replace(following=shifted))))


def _find_runs(rows: np.ndarray, top: int) -> _Runs:
    """Cut the edges between rows (h + 1, w + 2) of regions into runs.

    The first row of corners is ``top``; the first and last columns are a margin of zeros.
    """
    width = rows.shape[1]
    above, below = rows[:-1].ravel(), rows[1:].ravel()
    edges = np.flatnonzero(above != below)
    north, south = above[edges], below[edges]
    begins = np.ones(len(edges), bool)
    begins[1:] = ((np.diff(edges) != 1) | (north[1:] != north[:-1]) | (south[1:] != south[:-1]))
    north, south = north[begins], south[begins]
    west = edges[begins] - 1
    east = edges[np.append(begins[1:], True)[:len(edges)]] + 1
    row = top + west // width
    left = np.stack([west % width, row], axis=1).astype(np.int32)
    right = np.stack([east % width - 1, row], axis=1).astype(np.int32)
    # Regions of the pixels around: of the run's left point, and of its right point.
    north_west, south_west = above[west], below[west]
    north_east, south_east = above[east], below[east]

    eastward = np.flatnonzero(south)
    region = south[eastward]
    runs = _Runs(
        region, np.stack([left[eastward], right[eastward]], axis=1),
        np.stack([
            np.where(north_west[eastward] == region, WEST_UP,
                     np.where(south_west[eastward] == region, STRAIGHT, EAST_DOWN)),
            np.where(north_east[eastward] == region, EAST_UP,
                     np.where(south_east[eastward] == region, STRAIGHT, WEST_DOWN))], axis=1),
        np.arange(1, len(eastward) + 1))
    westward = np.flatnonzero(north)
    region = north[westward]
    runs = runs.then(_Runs(
        region, np.stack([right[westward], left[westward]], axis=1),
        np.stack([
            np.where(south_east[westward] == region, EAST_DOWN,
                     np.where(north_east[westward] == region, STRAIGHT, WEST_UP)),
            np.where(south_west[westward] == region, WEST_DOWN,
                     np.where(north_west[westward] == region, STRAIGHT, EAST_UP))], axis=1),
        np.arange(-1, len(westward) - 1)))
    # Corners of neighbours on straight vertical edges: runs of no length.
    for region, other, points, turns in (
            (north_west, south_west, left, (WEST_UP, WEST_DOWN)),
            (north_east, south_east, right, (EAST_DOWN, EAST_UP))):
        passed = np.flatnonzero((region == other) & (region != 0) & (region != north)
                                & (region != south))
        runs = runs.then(_Runs(
            region[passed], np.stack([points[passed]] * 2, axis=1),
            np.tile(np.array(turns), (len(passed), 1)), np.full(len(passed), NONE)))
    return runs._replace(following=np.where(runs.turns[:, 1] == STRAIGHT, runs.following, NONE))


def _link(runs: _Runs) -> None:
    """Find what follows each run by a vertical edge, where that has an end yet."""
    run, end = np.nonzero(runs.turns != STRAIGHT)
    turns = runs.turns[run, end]
    column, row = runs.points[run, end].astype(np.int64).T
    side, downward = turns // 2, turns % 2
    # Upward before downward: one vertical edge may end where the next begins.
    keys = (2 * column + side) << 33 | row << 1 | downward
    order = np.argsort(keys)
    run, keys, side, downward = run[order], keys[order], side[order], downward[order]
    linked = np.flatnonzero((downward[:-1] == 1) & (keys[:-1] >> 33 == keys[1:] >> 33))
    assert not downward[linked + 1].any()
    # Southward with the region to the west, northward with the region to the east.
    southward = side[linked] == 0
    source = np.where(southward, run[linked], run[linked + 1])
    runs.following[source] = np.where(southward, run[linked + 1], run[linked])


def _walk(following: np.ndarray) -> Iterator[tuple[list[int], bool]]:
    """Yield the runs of each open chain, then of each ring, in order; and whether it is open."""
    is_first = np.ones(len(following), bool)
    is_first[following[following != NONE]] = False
    heads = np.flatnonzero(is_first).tolist()
    following = following.tolist()
    seen = bytearray(len(following))
    for count, run in enumerate([*heads, *range(len(following))]):
        order = []
        while run != NONE and not seen[run]:
            seen[run] = 1
            order.append(run)
            run = following[run]
        if order:
            yield order, count < len(heads)


def _parts(order: list[int], chains: list[list], points: np.ndarray) -> Iterator[list | np.ndarray]:
    """Yield the points of runs that follow each other; the first ones stand for open chains."""
    start = 0
    runs = np.array(order)
    for place in [*np.flatnonzero(runs < len(chains)).tolist(), len(order)]:
        if place > start:
            yield points[runs[start:place]].reshape(-1, 2)
        if place < len(order):
            yield chains[order[place]]
        start = place + 1


def _flatten(parts: list) -> Iterator[np.ndarray]:
    """Yield the arrays of lists in lists, which are nested as deep as there are strips."""
    stack = [iter(parts)]
    while stack:
        for part in stack[-1]:
            if isinstance(part, list):
                stack.append(iter(part))
                break
            yield part
        else:
            stack.pop()
