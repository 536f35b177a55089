"""Positions of windows, cells and blocks of a raster, in integers.

A cell is the square of pixels that has one score per class. The raster is padded at its right and
bottom to whole cells; windows lie on the lattice of cells and may overlap; blocks are the
rectangles in which the map is computed. All sizes are (rows, columns), in pixels by default.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from bhvit_seg.errors import UserError


class Window(NamedTuple):
    """A rectangle of pixels; ``bottom`` and ``right`` are exclusive."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width


@dataclass(frozen=True)
class Grid:
    """The windows over a raster; :func:`lay_grid` makes one."""

    height: int
    width: int
    cell: int
    window: tuple[int, int]  # multiples of ``cell``
    overlap: tuple[int, int]  # the least of neighbours, in cells; 0 of one window only
    tops: tuple[int, ...]  # of each row of windows, multiples of ``cell``, ascending
    lefts: tuple[int, ...]  # of each column of windows

    @property
    def cells_high(self) -> int:
        return -(-self.height // self.cell)

    @property
    def cells_wide(self) -> int:
        return -(-self.width // self.cell)

    @property
    def window_cells(self) -> tuple[int, int]:
        return self.window[0] // self.cell, self.window[1] // self.cell

    def window_at(self, i: int, j: int) -> Window:
        """Return window ``j`` of window row ``i``; it lies within the padded raster."""
        return Window(self.tops[i], self.lefts[j], *self.window)

    def rows_over(self, first: int, stop: int) -> range:
        """Return the rows of windows that cover any of the cell rows ``first`` to ``stop - 1``."""
        return self._over(self.tops, self.window[0], first, stop)

    def columns_over(self, first: int, stop: int) -> range:
        return self._over(self.lefts, self.window[1], first, stop)

    def _over(self, starts: tuple[int, ...], side: int, first: int, stop: int) -> range:
        if first >= stop:
            return range(0)
        return range(bisect_right(starts, first * self.cell - side),
                     bisect_left(starts, stop * self.cell))

    def cells_of(self, block: Window) -> tuple[int, int, int, int]:
        """Return first and stop row, first and stop column of the cells that determine a block: its
        own and, for bilinear upsampling, one more on each side."""
        return (max(0, block.top // self.cell - 1),
                min(self.cells_high, -(-block.bottom // self.cell) + 1),
                max(0, block.left // self.cell - 1),
                min(self.cells_wide, -(-block.right // self.cell) + 1))


def lay_grid(size: tuple[int, int], window: tuple[int, int], overlap: float, cell: int) -> Grid:
    """Cover a raster with the fewest windows that have at least the given overlap.

    Sides of windows are rounded up to whole cells and limited to the padded raster. Windows are
    spread evenly from its first row and column to its last.

    Args:
        size, window: Rows and columns, of the raster and of a window.
        overlap: Fraction of a window's side that its neighbour also covers, from 0 to below 1, read
            as a decimal number: 0.1 of 30 cells are 3 cells. Windows are at least one cell apart.
        cell: Side of a cell.
    """
    if min(window) < 1:
        raise UserError(f'a window of {window[0]} x {window[1]} pixels is not a window: give at '
                        'least 1')
    if not 0 <= overlap < 1:
        raise UserError(f'overlap {overlap} is not a fraction of a window: give a number from 0 to '
                        'below 1, such as 0.25')
    fraction = Fraction(str(float(overlap)))
    axes = []
    for length, side in zip(size, window):
        cells = -(-int(length) // cell)
        side = min(-(-int(side) // cell), cells)
        span = cells - side
        gaps = -(-span // max(1, int((1 - fraction) * side)))
        # Neighbours are span / gaps apart, rounded down or up: at most the requested distance,
        # which is a whole number, and at least one cell.
        starts = tuple(k * span // gaps * cell for k in range(gaps + 1)) if gaps else (0,)
        axes.append((side * cell, side - -(-span // gaps) if gaps else 0, starts))
    sides, overlaps, (tops, lefts) = zip(*axes)
    return Grid(int(size[0]), int(size[1]), int(cell), sides, overlaps, tops, lefts)


def cut_blocks(size: tuple[int, int], block: tuple[int, int]) -> tuple[Window, ...]:
    """Cut a raster into blocks, row by row; those at its right and bottom may be smaller."""
    (height, width), (rows, columns) = size, block
    return tuple(Window(top, left, min(rows, height - top), min(columns, width - left))
                 for top in range(0, height, rows) for left in range(0, width, columns))
