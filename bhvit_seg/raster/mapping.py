"""Maps a run of blocks: reads pixels, computes scores, blends them and labels the pixels.

Every worker, in this process, another one or on another machine, calls :func:`map_run`. The result
of a block depends on the raster, the model and the options alone, to the bit: its windows are
computed the same way whichever blocks are computed with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Callable

import numpy as np

from bhvit_seg.inference.blending import Blender
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.resizing import upsample_rows
from bhvit_seg.inference.windows import Grid, Window
from bhvit_seg.raster.reading import RasterSource

NODATA = 255
STEPS = ('reading', 'waiting for reading', 'model', 'blending', 'labels')


@dataclass
class Statistics:
    """Counts and times of a run.

    Attributes:
        computed: Windows that the model computed.
        empty: Windows without a valid pixel.
        seconds: Time by step.
    """

    computed: int = 0
    empty: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))

    def add(self, other: Statistics) -> None:
        """Add those of another run."""
        self.computed += other.computed
        self.empty += other.empty
        for step, seconds in other.seconds.items():
            self.seconds[step] += seconds

    def take(self) -> Statistics:
        """Return what was counted since the last call."""
        taken = Statistics(self.computed, self.empty, self.seconds)
        self.computed, self.empty, self.seconds = 0, 0, dict.fromkeys(STEPS, 0.0)
        return taken


@dataclass
class MappedBlock:
    """A finished block.

    Attributes:
        labels: ``(h, w)`` uint8 class ids, :data:`NODATA` where the raster has no data.
        probabilities: ``(classes, h, w)``, or None if not requested: float16, or uint8 in units
            of 1/255.
        valid: ``(h, w)`` bool, or None where every pixel is valid.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    valid: np.ndarray | None


def windows_of_run(grid: Grid, blocks: Sequence[Window]) -> tuple[range, range]:
    """Return the rows and columns of windows whose scores decide the pixels of adjacent blocks."""
    first, _, left, right = grid.cells_of(blocks[0])
    stop = grid.cells_of(blocks[-1])[1]
    return grid.rows_over(first, stop), grid.columns_over(left, right)


def map_run(source: RasterSource, model: Predictor, grid: Grid, blocks: Sequence[Window],
            probabilities: str | None = None, statistics: Statistics | None = None,
            on_windows: Callable[[int], None] = lambda count: None) -> Iterator[MappedBlock]:
    """Map vertically adjacent blocks of the same columns.

    The next rows are read while the model computes.

    Args:
        source: The raster.
        model: The model.
        grid: Where windows lie.
        blocks: The blocks, from the top down without gaps.
        probabilities: Also return the softmax of the upsampled scores, as ``'uint8'`` or
            ``'float16'``.
        statistics: Counts and times are added to it.
        on_windows: Called with the number of windows finished since the last call.

    Yields:
        Each block when its last window is finished.

    Raises:
        UserError: A part of the raster cannot be read.
    """
    statistics = Statistics() if statistics is None else statistics
    first_cell, _, left, right = grid.cells_of(blocks[0])
    last_cell = grid.cells_of(blocks[-1])[1]
    rows, columns = windows_of_run(grid, blocks)
    step = max(stop - first for first, stop, *_ in map(grid.cells_of, blocks))
    blender = Blender(grid, len(model.classes), (first_cell, last_cell), (left, right),
                      step + grid.window_cells[0])
    waiting = _Waiting(grid, blocks, blender, left, right, source.has_nodata)
    groups = list(_groups(columns, model.batch, len(grid.lefts)))
    with ThreadPoolExecutor(1) as executor:
        reader = _Reader(source, grid, rows, (groups[0][0], groups[-1][-1]), executor, statistics)
        for i in rows:
            strip = reader.next()
            for group in groups:
                chosen = [j for j in group if strip.touches_data(grid.window_at(i, j))]
                if chosen:
                    start = time.perf_counter()
                    scores = model.scores(strip.cut([grid.window_at(i, j) for j in chosen]))
                    middle = time.perf_counter()
                    for j, values in zip(chosen, scores):
                        blender.add(i, j, values)
                    statistics.seconds['model'] += middle - start
                    statistics.seconds['blending'] += time.perf_counter() - middle
                wanted = [j for j in group if j in columns]
                statistics.computed += len([j for j in wanted if j in chosen])
                statistics.empty += len([j for j in wanted if j not in chosen])
                on_windows(len(wanted))
            below = grid.tops[i + 1] // grid.cell if i + 1 < rows.stop else last_cell
            waiting.keep_valid(strip)
            yield from waiting.finished(below, model, probabilities, statistics)


def _groups(columns: range, batch: int, count: int) -> Iterator[range]:
    """Cut columns of windows into batches.

    Batches begin at the same windows whatever the columns, since the scores of a window may depend,
    in the last bits, on the others of its batch; some windows are computed in vain for that.
    """
    first = columns.start // batch * batch
    for start in range(first, columns.stop, batch):
        yield range(start, min(start + batch, count))


class _Strip:
    """The pixels of a row of windows, with one more cell on each side."""

    def __init__(self, at: Window, pixels: np.ndarray, valid: np.ndarray, cell: int,
                 all_valid: bool) -> None:
        self.at = at
        self.pixels = pixels
        self.valid = valid
        self._cell = cell
        self._all_valid = all_valid

    def touches_data(self, window: Window) -> bool:
        """Whether a valid pixel lies in the window or within a cell of it.

        Pixels beside a window are interpolated from its outermost scores, too, hence the cell.
        """
        if self._all_valid:
            return True
        top, left = window.top - self.at.top, window.left - self.at.left
        return bool(self.valid[top - self._cell:top + window.height + self._cell,
                               left - self._cell:left + window.width + self._cell].any())

    def cut(self, windows: Sequence[Window]) -> np.ndarray:
        """Return the pixels of windows, ``(B, h, w, C)``."""
        return np.stack([
            self.pixels[window.top - self.at.top:window.bottom - self.at.top,
                        window.left - self.at.left:window.right - self.at.left]
            for window in windows])


class _Reader:
    """Reads rows of windows, one row of windows ahead, and each row of pixels once."""

    def __init__(self, source: RasterSource, grid: Grid, rows: range, columns: tuple[int, int],
                 executor: ThreadPoolExecutor, statistics: Statistics) -> None:
        self._source = source
        self._grid = grid
        self._rows = rows
        first, last = columns
        self._left = grid.lefts[first] - grid.cell
        self._width = grid.lefts[last] + grid.window[1] + grid.cell - self._left
        self._executor = executor
        self._tally = statistics
        self._before: _Strip | None = None
        self._next = rows.start
        self._pending: Future[_Strip] = self._submit()

    def next(self) -> _Strip:
        """Return the next strip and start to read the one after it."""
        start = time.perf_counter()
        strip = self._pending.result()
        self._tally.seconds['waiting for reading'] += time.perf_counter() - start
        self._before = strip
        if self._next < self._rows.stop:
            self._pending = self._submit()
        return strip

    def _submit(self) -> Future[_Strip]:
        self._next += 1
        return self._executor.submit(self._read, self._next - 1, self._before)

    def _read(self, i: int, before: _Strip | None) -> _Strip:
        start = time.perf_counter()
        cell = self._grid.cell
        at = Window(self._grid.tops[i] - cell, self._left, self._grid.window[0] + 2 * cell,
                    self._width)
        known = 0 if before is None else max(0, before.at.bottom - at.top)
        new, new_valid = self._source.read(
            Window(at.top + known, at.left, at.height - known, at.width))
        if known:
            pixels = np.concatenate([before.pixels[-known:], new])
            valid = np.concatenate([before.valid[-known:], new_valid])
        else:
            pixels, valid = new, new_valid
        self._tally.seconds['reading'] += time.perf_counter() - start
        return _Strip(at, pixels, valid, cell, not self._source.has_nodata)


class _Waiting:
    """Blended scores and masks of finished rows, until a block is complete."""

    def __init__(self, grid: Grid, blocks: Sequence[Window], blender: Blender, left: int,
                 right: int, masked: bool) -> None:
        self._grid = grid
        self._blocks = list(blocks)
        self._blender = blender
        self._left, self._right = left, right
        self._masked = masked
        self._overlap: np.ndarray | None = None
        self._valid: list[tuple[int, np.ndarray]] = []

    def keep_valid(self, strip: _Strip) -> None:
        """Keep the mask of those rows of a strip that earlier strips did not contain."""
        if not self._masked or not self._blocks:
            return
        block = self._blocks[0]
        known = self._valid[-1][0] + len(self._valid[-1][1]) if self._valid else block.top
        first = max(known - strip.at.top, 0)
        columns = slice(block.left - strip.at.left, block.right - strip.at.left)
        if first < len(strip.valid):
            self._valid.append((strip.at.top + first, strip.valid[first:, columns].copy()))

    def finished(self, below: int, model: Predictor, probabilities: str | None,
                 statistics: Statistics) -> Iterator[MappedBlock]:
        """Yield the blocks all of whose cells lie above the row ``below``."""
        while self._blocks and self._grid.cells_of(self._blocks[0])[1] <= below:
            block = self._blocks.pop(0)
            first, stop, *_ = self._grid.cells_of(block)
            start = time.perf_counter()
            new = self._blender.take(stop)
            scores = new if self._overlap is None else np.concatenate([self._overlap, new], axis=1)
            if self._blocks:
                shared = stop - self._grid.cells_of(self._blocks[0])[0]
                self._overlap = scores[:, scores.shape[1] - shared:].copy()
            middle = time.perf_counter()
            cell = self._grid.cell
            inside = (slice(block.top - first * cell, block.bottom - first * cell),
                      slice(block.left - self._left * cell, block.right - self._left * cell))
            labels = np.ascontiguousarray(model.label(scores)[inside])
            softmax = (None if probabilities is None else
                       find_probabilities(scores, cell, probabilities)[(slice(None), *inside)])
            valid = self._take_valid(block)
            if valid is not None:
                labels[~valid] = NODATA
            statistics.seconds['blending'] += middle - start
            statistics.seconds['labels'] += time.perf_counter() - middle
            yield MappedBlock(labels, softmax, valid)

    def _take_valid(self, block: Window) -> np.ndarray | None:
        """Return the mask of a block and drop it."""
        if not self._masked:
            return None
        rows = np.concatenate([valid for _, valid in self._valid])
        assert self._valid[0][0] == block.top and len(rows) >= block.height
        self._valid = [(block.bottom, rows[block.height:])]
        return rows[:block.height]


def find_probabilities(scores: np.ndarray, cell: int, dtype: str) -> np.ndarray:
    """Return the softmax of bilinearly upsampled scores.

    Args:
        scores: ``(classes, h, w)`` float32.
        cell: The factor of the upsampling.
        dtype: ``'float16'``, or ``'uint8'`` for units of 1/255.

    Returns:
        ``(classes, cell * h, cell * w)``.
    """
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
