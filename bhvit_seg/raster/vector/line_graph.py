"""Lines between junctions, traced through the cells of a skeleton, without spurs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np

from bhvit_seg.raster.vector.skeletons import Skeleton

# A line goes straight on where it turns by less than this angle, given by its cosine.
STRAIGHT_ON = np.cos(np.radians(30))
# Lines to the raster's edge are spurs up to this many widths; the first half width lies inside the
# line that they branch off from.
SHORT_CUT = 0.75


class Line(NamedTuple):
    """A line between two nodes, which are the same node if it is a ring."""

    points: np.ndarray  # (n, 2) x and y in cells
    radii: np.ndarray  # (n,) half of the class's width at each point, in cells
    nodes: tuple[int, int]  # of the first and the last point

    @property
    def length(self) -> float:
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())

    def length_in(self, size: tuple[int, int]) -> float:
        """Length in cells of the part inside a raster of (height, width) cells."""
        middles = (self.points[1:] + self.points[:-1]) / 2
        inside = ((middles >= 0) & (middles <= size[::-1])).all(axis=1)
        return float(np.hypot(*np.diff(self.points, axis=0)[inside].T).sum())

    def reversed(self) -> Line:
        return Line(self.points[::-1], self.radii[::-1], self.nodes[::-1])

    def reach(self, distance: float) -> int:
        """Return the index of the first point at this distance from the start, or of the last."""
        reached = np.hypot(*(self.points - self.points[0]).T) >= distance
        return int(np.argmax(reached)) if reached.any() else len(reached) - 1

    def heading(self, start: float, stop: float) -> np.ndarray:
        """Return the direction (2,) of the line between two distances from its start."""
        near, far = self.reach(start), self.reach(stop)
        step = self.points[far] - self.points[near if near < far else 0]
        return step / max(np.hypot(*step), 1e-9)


class LineGraph:
    """Lines and the nodes at which they meet; ``size`` is that of the raster in cells."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.size = skeleton.size
        self._numbers = count()
        self._lines: dict[int, Line] = {}
        # A ring is listed twice at its node.
        self._at: dict[int, list[int]] = {}
        for line in _trace(skeleton):
            self.add(line)

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    @property
    def nodes(self) -> list[int]:
        return list(self._at)

    def degree(self, node: int) -> int:
        return len(self._at.get(node, ()))

    def at(self, node: int) -> dict[int, Line]:
        """Return the lines at a node by number, starting there."""
        lines = {number: self._lines[number] for number in self._at.get(node, ())}
        return {number: line if line.nodes[0] == node else line.reversed()
                for number, line in lines.items()}

    def add(self, line: Line) -> None:
        number = next(self._numbers)
        self._lines[number] = line
        for node in line.nodes:
            self._at.setdefault(node, []).append(number)

    def remove(self, number: int) -> Line:
        line = self._lines.pop(number)
        for node in line.nodes:
            self._at[node].remove(number)
            if not self._at[node]:
                del self._at[node]
        return line

    def join(self) -> None:
        for node in self.nodes:
            lines = self.at(node)
            if self.degree(node) == 2 and len(lines) == 2:
                one, other = lines.values()
                for number in lines:
                    self.remove(number)
                self.add(Line(np.concatenate([one.points[::-1], other.points[1:]]),
                              np.concatenate([one.radii[::-1], other.radii[1:]]),
                              (one.nodes[1], other.nodes[1])))

    def prune(self) -> None:
        """Remove spurs, lines not longer than the class is wide; forks keep the straight branch."""
        self.join()
        pruned = True
        while pruned:
            pruned = False
            for node in self.nodes:
                if self.degree(node) > 2:
                    pruned |= self._prune_at(node)
            self.join()

    def _prune_at(self, node: int) -> bool:
        lines = self.at(node)
        width = 2 * max(line.radii[0] for line in lines.values())
        spurs = [number for number, line in lines.items()
                 if self.degree(line.nodes[1]) == 1 and self._is_short(line, width)]
        spurs.sort(key=lambda number: -lines[number].length)
        others = [line for number, line in lines.items() if number not in spurs]
        if not others:
            del spurs[:2]
        elif len(others) == 1 and others[0].nodes[0] != others[0].nodes[1]:
            backward = others[0].heading(width / 2, 2 * width)
            for number in spurs:
                if -backward @ lines[number].heading(0, width) > STRAIGHT_ON:
                    spurs.remove(number)
                    break
        for number in spurs:
            self.remove(number)
        return bool(spurs)

    def _is_short(self, line: Line, width: float) -> bool:
        """Whether a line may be only a bump of the one of this width that it branches off from."""
        inside = line.length_in(self.size)
        # Lines that the raster's edge cuts are longer in reality.
        return inside <= (width + 1 if inside == line.length else SHORT_CUT * width)


def _trace(skeleton: Skeleton) -> Iterator[Line]:
    """Yield lines between cells that do not have two neighbours, and rings of cells that all do."""
    cells = len(skeleton.cells)
    sources, targets = np.concatenate([skeleton.pairs, skeleton.pairs[:, ::-1]]).T
    targets = targets[np.argsort(sources, kind='stable')].tolist()
    degrees = np.bincount(sources, minlength=cells)
    starts = np.concatenate([[0], np.cumsum(degrees)]).tolist()
    points = skeleton.cells[:, ::-1] + 0.5
    seen = bytearray(cells)

    def follow(source: int, cell: int) -> list[int]:
        path = [source, cell]
        while starts[cell + 1] - starts[cell] == 2 and cell != path[0]:
            seen[cell] = 1
            one, other = targets[starts[cell]:starts[cell] + 2]
            source, cell = cell, other if one == source else one
            path.append(cell)
        return path

    def line(path: list[int]) -> Line:
        return Line(points[path], skeleton.radii[path], (path[0], path[-1]))

    nodes = np.flatnonzero(degrees != 2)
    # Each line is met from both its ends.
    met: set[tuple[int, int]] = set()
    for node in nodes.tolist():
        for cell in targets[starts[node]:starts[node + 1]]:
            if (node, cell) not in met:
                path = follow(node, cell)
                met.add((path[-1], path[-2]))
                yield line(path)
    for cell in np.flatnonzero(degrees == 2).tolist():
        if not seen[cell]:
            yield line(follow(cell, targets[starts[cell]]))
