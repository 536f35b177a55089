"""Weighted mean of the scores of overlapping windows, a band of rows at a time.

Weights are 1 in the middle of a window and fall off towards its border, where the model has less
context; none is 0, so every cell that a window covers has a score. Only a band of rows is kept.

The result of a cell does not depend, to the bit, on which rows and columns are computed together:
sums are in float32, each cell adds up its own windows in row-major order, and nothing else is ever
added to it.
"""

from __future__ import annotations

import numpy as np

from bhvit_seg.inference.windows import Grid


def window_weights(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of a window's rows and of its columns; a cell's is their product.

    Weights, float32 and above 0, rise to 1 over as many cells as neighbouring windows overlap, or
    towards it where that is more than half a window, and fall again.
    """
    weights = []
    for side, overlap in zip(grid.window_cells, grid.overlap):
        steps = np.arange(side) + 0.5
        weights.append(np.minimum(1, np.minimum(steps, steps[::-1]) / max(1, overlap))
                       .astype(np.float32))
    return weights[0], weights[1]


class Blender:
    """Accumulates weighted scores of windows and returns their means, from the top down.

    Windows come in row-major order. Rows may be taken when every window that covers any of them
    has been added, which is the caller's duty: of the windows of ``grid.rows_over`` those rows,
    and ``grid.columns_over`` the columns, some may be omitted (they are then not in the
    mean), but none may come later.

    Args:
        grid: Where windows lie.
        classes: Scores of a cell.
        rows: The first row of cells to be taken, and the one after the last.
        columns: The first column of cells to be taken, and the one after the last.
        step: The most rows that are taken at once; memory is needed for as many, and for a
            window's. Defaults to all of them.
    """

    def __init__(self, grid: Grid, classes: int, rows: tuple[int, int], columns: tuple[int, int],
                 step: int | None = None) -> None:
        assert 0 <= rows[0] < rows[1] <= grid.cells_high
        assert 0 <= columns[0] < columns[1] <= grid.cells_wide
        assert step is None or step >= 1
        self._grid = grid
        self._first, self._stop = rows
        self._left, self._right = columns
        self._taken = self._reached = self._first
        self._last = (-1, -1)
        # The rows of a step wait, and those of a window that begins in its last row.
        height = rows[1] - rows[0]
        band = height if step is None else min(height, step + grid.window_cells[0] - 1)
        self._sums = np.zeros((classes, band, columns[1] - columns[0]), np.float32)
        self._totals = np.zeros(self._sums.shape[1:], np.float32)
        self._weights = np.outer(*window_weights(grid))
        self._scratch = np.empty_like(self._weights)

    def add(self, i: int, j: int, scores: np.ndarray) -> None:
        """Add window ``j`` of window row ``i``; cells outside of rows and columns are ignored.

        Args:
            scores: (classes, rows, columns) of the window's cells, float32.
        """
        grid = self._grid
        assert (i, j) > self._last, 'windows come in row-major order'
        assert scores.shape == (len(self._sums), *grid.window_cells)
        assert scores.dtype == np.float32
        self._last = i, j
        top, left = grid.tops[i] // grid.cell, grid.lefts[j] // grid.cell
        first, stop = max(top, self._first), min(top + len(self._weights), self._stop)
        start, end = max(left, self._left), min(left + self._weights.shape[1], self._right)
        if first >= stop or start >= end:
            return
        assert first >= self._taken, 'rows of this window have been taken already'
        assert stop - self._taken <= len(self._totals), 'more rows wait than step allows'
        self._reached = max(self._reached, stop)
        inside = slice(first - top, stop - top), slice(start - left, end - left)
        here = (slice(first - self._taken, stop - self._taken),
                slice(start - self._left, end - self._left))
        weights, scratch = self._weights[inside], self._scratch[inside]
        self._totals[here] += weights
        for sums, values in zip(self._sums, scores):
            np.multiply(values[inside], weights, out=scratch)
            sums[here] += scratch

    def take(self, stop: int) -> np.ndarray:
        """Return the mean scores of the rows from the last taken one to ``stop``; forget them.

        Returns:
            (classes, rows, columns) float32; 0 in cells that no window reached.
        """
        assert self._taken <= stop <= self._stop
        count = stop - self._taken
        assert count <= len(self._totals), 'more rows are taken than step allows'
        totals = self._totals[:count]
        means = self._sums[:, :count] / np.where(totals > 0, totals, np.float32(1))
        width = totals.shape[1]
        used = (self._reached - self._taken) * width
        kept = max(0, used - count * width)
        for plane in (*self._sums, self._totals):
            # In one dimension NumPy copies between overlapping ranges without a temporary.
            values = plane.reshape(-1)
            values[:kept] = values[used - kept:used]
            values[kept:used] = 0
        self._taken = stop
        self._reached = max(self._reached, stop)
        return means
