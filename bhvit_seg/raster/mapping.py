"""Maps a run of blocks; the result of a block depends only on raster, model and options, to the
bit, whichever blocks are computed with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, NamedTuple

import numpy as np

from bhvit_seg.inference.blending import Blender
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.resizing import upsample_rows
from bhvit_seg.inference.windows import Grid, Window
from bhvit_seg.raster.reading import RasterSource

NODATA = 255


def windows_of_run(grid: Grid, blocks: Sequence[Window]) -> tuple[range, range]:
    """Return the rows and columns of windows that determine the pixels of adjacent blocks."""
    first, _, left, right = grid.cells_of(blocks[0])
    stop = grid.cells_of(blocks[-1])[1]
    return grid.rows_over(first, stop), grid.columns_over(left, right)


def map_run(source: RasterSource, model: Predictor, grid: Grid, blocks: Sequence[Window],
            probabilities: str | None = None, statistics: Counter | None = None,
            on_windows: Callable[[int], None] = lambda count: None
            ) -> Iterator[dict[str, np.ndarray]]:
    """Map vertically adjacent blocks of the same columns; reading overlaps with the model.

    Args:
        blocks: From the top down without gaps.
        probabilities: Also return the softmax of the upsampled scores, as ``'uint8'`` or
            ``'float16'``.
        statistics: Receives the windows ``computed`` and ``empty`` (without a valid pixel).
        on_windows: Called with the number of windows finished since the last call.

    Yields:
        For each block ``labels``, ``(h, w)`` uint8 class ids with :data:`NODATA`, and on request
        ``probabilities``, ``(classes, h, w)`` float16 or uint8 in units of 1/255, with ``valid``,
        ``(h, w)`` bool, unless every pixel of the raster is valid.
    """
    statistics = Counter() if statistics is None else statistics
    cell = grid.cell
    first_cell, _, left, right = grid.cells_of(blocks[0])
    last_cell = grid.cells_of(blocks[-1])[1]
    rows, columns = windows_of_run(grid, blocks)
    # Batches begin at the same windows whatever the columns, since the scores of a window may
    # depend, in the last bits, on the others of its batch; some results are therefore discarded.
    groups = [range(start, min(start + model.batch, len(grid.lefts))) for start in range(
        columns.start // model.batch * model.batch, columns.stop, model.batch)]
    step = max(stop - first for first, stop, *_ in map(grid.cells_of, blocks))
    blender = Blender(grid, len(model.classes), (first_cell, last_cell), (left, right),
                      step + grid.window_cells[0])
    waiting = list(blocks)
    # Scores that the next block shares with the last one, and where its rows are valid.
    shared = np.empty((len(model.classes), 0, right - left), np.float32)
    valid = np.empty((0, blocks[0].width), bool)
    strips = _read_strips(source, grid, rows, range(groups[0][0], groups[-1][-1] + 1))
    for i, strip in zip(rows, strips):
        for group in groups:
            chosen = [j for j in group if not source.has_nodata
                      or strip.touches_data(grid.window_at(i, j), cell)]
            if chosen:
                scores = model.scores(np.stack([
                    strip.pixels[strip.part(grid.window_at(i, j))] for j in chosen]))
                for j, values in zip(chosen, scores):
                    blender.add(i, j, values)
            wanted = [j for j in group if j in columns]
            computed = len(set(wanted).intersection(chosen))
            statistics['computed'] += computed
            statistics['empty'] += len(wanted) - computed
            on_windows(len(wanted))
        if source.has_nodata and waiting:
            new = max(0, waiting[0].top + len(valid) - strip.at.top)
            valid = np.concatenate([valid, strip.valid[new:, strip.part(blocks[0])[1]]])
        below = grid.tops[i + 1] // cell if i + 1 < rows.stop else last_cell
        while waiting and grid.cells_of(waiting[0])[1] <= below:
            block = waiting.pop(0)
            first, stop, *_ = grid.cells_of(block)
            scores = np.concatenate([shared, blender.take(stop)], axis=1)
            if waiting:
                shared = scores[:, grid.cells_of(waiting[0])[0] - first:].copy()
            inside = (slice(block.top - first * cell, block.bottom - first * cell),
                      slice(block.left - left * cell, block.right - left * cell))
            arrays = {'labels': np.ascontiguousarray(model.label(scores)[inside])}
            if probabilities is not None:
                arrays['probabilities'] = find_probabilities(
                    scores, cell, probabilities)[(slice(None), *inside)]
            if source.has_nodata:
                here, valid = valid[:block.height], valid[block.height:]
                arrays['labels'][~here] = NODATA
                if probabilities is not None:
                    arrays['valid'] = here
            yield arrays


class _Strip(NamedTuple):
    """The pixels ``(h, w, C)`` of a row of windows, with one more cell on each side."""

    at: Window
    pixels: np.ndarray
    valid: np.ndarray

    def part(self, window: Window, beside: int = 0) -> tuple[slice, slice]:
        """Return the rows and columns of a window, extended by some pixels."""
        top, left = window.top - self.at.top, window.left - self.at.left
        return (slice(max(0, top - beside), top + window.height + beside),
                slice(max(0, left - beside), left + window.width + beside))

    def touches_data(self, window: Window, cell: int) -> bool:
        """Whether a valid pixel lies in the window or, for interpolation, within a cell of it."""
        return bool(self.valid[self.part(window, cell)].any())


def _read_strips(source: RasterSource, grid: Grid, rows: range, columns: range
                 ) -> Iterator[_Strip]:
    """Yield strips; each row of pixels is read once, and the next strip in advance."""
    cell = grid.cell
    left = grid.lefts[columns[0]] - cell
    width = grid.lefts[columns[-1]] + grid.window[1] + cell - left

    def read(i: int, before: _Strip | None) -> _Strip:
        at = Window(grid.tops[i] - cell, left, grid.window[0] + 2 * cell, width)
        known = 0 if before is None else max(0, before.at.bottom - at.top)
        pixels, valid = source.read(Window(at.top + known, left, at.height - known, width))
        if known:
            pixels = np.concatenate([before.pixels[-known:], pixels])
            valid = np.concatenate([before.valid[-known:], valid])
        return _Strip(at, pixels, valid)

    with ThreadPoolExecutor(1) as executor:
        pending = executor.submit(read, rows.start, None)
        for i in rows:
            strip = pending.result()
            if i + 1 < rows.stop:
                pending = executor.submit(read, i + 1, strip)
            yield strip


def find_probabilities(scores: np.ndarray, cell: int, dtype: str) -> np.ndarray:
    """Return the softmax ``(classes, cell * h, cell * w)`` of upsampled scores ``(classes, h, w)``,
    as ``'float16'`` or as ``'uint8'`` in units of 1/255."""
    classes, rows, columns = scores.shape
    out = np.empty((classes, cell * rows, cell * columns), dtype)
    for row in range(rows):
        # With its neighbours, so that the result is that of all rows at once.
        first, stop = max(row - 1, 0), min(row + 2, rows)
        here = slice(cell * (row - first), cell * (row - first + 1))
        upsampled = upsample_rows(scores[:, first:stop], cell * (stop - first))[:, here]
        upsampled = upsample_rows(upsampled.swapaxes(1, 2), cell * columns).swapaxes(1, 2)
        exponentials = np.exp(upsampled - upsampled.max(axis=0))
        exponentials /= exponentials.sum(axis=0)
        if dtype == 'uint8':
            exponentials = np.rint(255 * exponentials)
        out[:, cell * row:cell * (row + 1)] = exponentials
    return out
