"""Weighted mean of the scores of overlapping windows, computed in bands of rows.

Weights fall from 1 in the middle of a window towards its border, where the model has less context;
none is 0. The result of a cell does not depend, to the bit, on the other rows and columns: sums are
float32, and each cell adds its own windows in row-major order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bhvit_seg.inference.windows import Grid


def window_weights(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (float32, above 0) of a window's rows and columns; a cell's is their
    product. They rise to 1 over the overlap of neighbours (at most half a window) and fall again.
    """
    weights = []
    for side, overlap in zip(grid.window_cells, grid.overlap):
        steps = np.arange(side) + 0.5
        weights.append(np.minimum(1, np.minimum(steps, steps[::-1]) / max(1, overlap))
                       .astype(np.float32))
    return weights[0], weights[1]


class Blender:
    """Accumulate weighted scores of windows and return their means from the top down.

    Windows come in row-major order. Before rows are taken, every window that covers them must have
    been added (``grid.rows_over``, ``grid.columns_over``); omitted windows are not in the mean.

    Args:
        classes: Number of scores of a cell.
        rows, columns: First cell to be taken, and the one after the last.
        step: Largest number of rows taken at once, which bounds the memory. Defaults to all.
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
        # Rows of a step, and of a window that begins in its last row.
        height = rows[1] - rows[0]
        band = height if step is None else min(height, step + grid.window_cells[0] - 1)
        self._sums = np.zeros((classes, band, columns[1] - columns[0]), np.float32)
        self._totals = np.zeros(self._sums.shape[1:], np.float32)
        self._weights = np.outer(*window_weights(grid))
        self._scratch = np.empty_like(self._weights)

    def add(self, i: int, j: int, scores: np.ndarray) -> None:
        """Add (classes, rows, columns) float32 scores of window ``j`` of window row ``i``."""
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
        """Return and free the mean scores of the rows up to ``stop``: (classes, rows, columns)
        float32, 0 in cells without a window."""
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


def class_opacity(labels: np.ndarray, names: Mapping[int, str], opacity: float) -> np.ndarray:
    """Return the opacity of the class colour of each pixel: none for the class ``background``."""
    background = [index for index, name in names.items() if name == 'background']
    return np.where(np.isin(labels, background), 0.0, opacity)
