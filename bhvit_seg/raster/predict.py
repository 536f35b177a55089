"""Maps a raster: one georeferenced raster in, one georeferenced label raster out.

Blocks are mapped by whoever is there and kept in a journal beside the output; one writer writes
them from the top down as soon as they are there. A run that was interrupted goes on from the
journal, and its file is the same to the byte.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import rasterio

from bhvit_seg.errors import explain_interrupt
from bhvit_seg.fileio import write_json
from bhvit_seg.inference.predictor import ModelSource, Predictor
from bhvit_seg.inference.windows import Grid, Window, cut_blocks, lay_grid
from bhvit_seg.raster.identity import describe_run, digests, is_finished
from bhvit_seg.raster.journal import PLAN, Journal
from bhvit_seg.raster.mapping import Tally
from bhvit_seg.raster.memory import Demand, block_size, reading_cache, resident_memory
from bhvit_seg.raster.outputs import IDENTITY_TAG, OutputPaths, check_outputs, probabilities_path
from bhvit_seg.raster.progress import WorkProgress
from bhvit_seg.raster.reading import RasterSource, ReadOptions
from bhvit_seg.raster.remarks import find_remarks
from bhvit_seg.raster.workers import (
    FinishedBlock,
    Job,
    cluster,
    count_windows,
    cut_runs,
    run_here,
    run_in_processes,
    run_on_cluster,
)
from bhvit_seg.raster.writing import OutputOptions, write_labels, write_probabilities

DEFAULT_MEMORY = 2 << 30


@dataclass(frozen=True)
class ReadChoices:
    """How the user wants rasters read; see :class:`~bhvit_seg.raster.reading.ReadOptions`."""

    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    border_nodata: str | None = None
    border_tolerance: int = 10
    value_range: tuple[float, float] | None = None
    alpha: bool = True


@dataclass(frozen=True)
class WindowChoices:
    """How the user wants windows laid.

    Attributes:
        size: Height and width in pixels. Defaults to the training crop.
        overlap: The share of a window that its neighbour covers too.
    """

    size: tuple[int, int] | None = None
    overlap: float = 0.25


@dataclass(frozen=True)
class WorkChoices:
    """Who works, and on how much at once. None of it changes the map.

    Attributes:
        max_memory: Bytes that this machine's processes may hold together. Defaults to 2 GB
            besides what this process holds already and what others need for the model.
        workers: Processes on this machine.
        scheduler: The address of a Dask scheduler; then its workers compute, and ``workers``
            does not count.
        restart: Forget what an interrupted run has finished.
        overwrite: Replace a map that is there.
    """

    max_memory: int | None = None
    workers: int = 1
    scheduler: str | None = None
    restart: bool = False
    overwrite: bool = False


@dataclass
class MapReport:
    """What became of a raster.

    Attributes:
        out: The label raster.
        probabilities: The raster of probabilities, if one was asked for.
        existed: Whether the map was there already.
        resumed: Blocks that an interrupted run had finished.
        tally: Windows, and seconds by step, of this run. In several processes seconds add up.
        writing: Seconds that writers were busy, beside the rest.
        seconds: Seconds from beginning to end.
    """

    out: Path
    probabilities: Path | None
    existed: bool = False
    resumed: int = 0
    tally: Tally = field(default_factory=Tally)
    writing: float = 0.0
    seconds: float = 0.0


def map_raster(raster: str | Path, out: Path, model_source: ModelSource, model: Predictor,
               reading: ReadChoices | None = None, windows: WindowChoices | None = None,
               output: OutputOptions | None = None, work: WorkChoices | None = None,
               probabilities: str | None = None) -> MapReport:
    """Map a raster into a GeoTIFF of class ids, 255 where the raster has no data.

    Args:
        raster: Anything that rasterio opens.
        out: The GeoTIFF.
        model_source: Where other processes load the model from.
        model: The model, loaded.
        reading: How the raster is read.
        windows: How windows are laid.
        output: How the GeoTIFF is written.
        work: Who works.
        probabilities: ``'uint8'`` or ``'float16'``: also write ``<out>_probabilities.tif``, a band
            a class.

    Raises:
        UserError: Something given is wrong, a part of the raster cannot be read, or the output
            cannot be written. What is finished is kept, and the same call goes on from there.
    """
    start = time.perf_counter()
    reading, windows = reading or ReadChoices(), windows or WindowChoices()
    output, work = output or OutputOptions(), work or WorkChoices()
    options = ReadOptions(channels=model.channels, fill=model.fill, eight_bit=model.eight_bit,
                          **asdict(reading))
    shares = probabilities_path(out) if probabilities else None
    check_outputs({raster: OutputPaths(out, shares)}, model_source.files, work.overwrite)
    report = MapReport(out, shares)
    cache = reading_cache(work.max_memory or DEFAULT_MEMORY)
    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=cache))
        source = stack.enter_context(RasterSource(raster, options))
        grid = lay_grid((source.height, source.width), windows.size or model.window,
                        windows.overlap, model.cell)
        identity = describe_run(source, model, grid, output, probabilities)
        if is_finished(out, shares, identity, work.overwrite):
            report.existed = True
            return report
        journal = stack.enter_context(Journal(out, identity, work.restart))
        demand = Demand(
            len(model.classes),
            model.channels * (1 if source.dtype == np.uint8 and not reading.value_range else 4),
            {None: 0, 'uint8': 1, 'float16': 2}[probabilities], model.batch)
        # Found once, before it is handed to others.
        source.read(Window(0, 0, 1, 1))
        for remark in find_remarks(source):
            print(f'note: {remark}', file=sys.stderr)
        blocks = cut_blocks((source.height, source.width),
                            plan_blocks(journal, grid, demand, work, cache))
        job = Job(source, model_source, grid, blocks, probabilities, cache // work.workers)
        report.resumed = len(journal.done)
        shelf = _Shelf(journal, blocks)
        tags = {path: {IDENTITY_TAG: text, 'MODEL': model.name}
                for path, text in digests(identity, out, shares).items()}
        writers = [lambda: write_labels(
            out, source, shelf.labels(), model.classes, model.palette, output, tags[out])]
        if shares is not None:
            writers.append(lambda: write_probabilities(
                shares, source, shelf.probabilities(), model.classes, probabilities, output,
                tags[shares]))
        with explain_interrupt(lambda: f'{len(journal.done)} of {len(blocks)} blocks of {out} are '
                                       'kept; the same command goes on from there'):
            _run(job, model, shelf, writers, work, report, out.name)
        journal.remove()
    report.seconds = time.perf_counter() - start
    return report


def plan_blocks(journal: Journal, grid: Grid, demand: Demand, work: WorkChoices, cache: int
                ) -> tuple[int, int]:
    """Return height and width of blocks: those of the interrupted run if it has finished any.

    Memory that GDAL takes as ``cache``, in bytes, is not theirs.
    """
    path = journal.folder / PLAN
    if journal.done and path.exists():
        return tuple(json.loads(path.read_text())['block'])
    if work.max_memory is None:
        limit = (DEFAULT_MEMORY - cache) // work.workers
    elif work.scheduler is not None or work.workers == 1:
        limit = work.max_memory - cache - resident_memory()
    else:
        # Every worker loads what this process has loaded.
        limit = (work.max_memory - cache - resident_memory()) // work.workers - resident_memory()
    size = block_size(grid, demand, limit)
    write_json(path, {'block': size})
    return size


def _run(job: Job, model: Predictor, shelf: _Shelf, writers: Sequence[Callable[[], None]],
         work: WorkChoices, report: MapReport, title: str) -> None:
    """Map what is missing, while writers write what is there."""
    missing = set(range(len(job.blocks))) - shelf.journal.done
    with contextlib.ExitStack() as stack:
        client, workers = None, work.workers
        if work.scheduler is not None:
            client = stack.enter_context(cluster(work.scheduler))
            workers = max(2, len(client.scheduler_info()['workers']))
        runs = cut_runs(job.blocks, missing, workers)
        progress = stack.enter_context(WorkProgress(title, count_windows(job, runs)))
        if client is not None:
            finished = run_on_cluster(job, runs, client, progress.add)
        elif workers > 1:
            finished = run_in_processes(job, runs, workers, progress.add)
        else:
            finished = run_here(job, runs, model, progress.add)
        stack.enter_context(contextlib.closing(finished))
        executor = stack.enter_context(ThreadPoolExecutor(len(writers)))
        futures = [executor.submit(_timed, writer, shelf, report) for writer in writers]
        try:
            for block in finished:
                shelf.put(block)
                report.tally.add(block.tally)
                _raise_failure(futures)
            for future in futures:
                future.result()
        except BaseException:
            shelf.give_up()
            _raise_failure(futures)
            raise


def _timed(writer: Callable[[], None], shelf: _Shelf, report: MapReport) -> None:
    start = time.perf_counter()
    waited = shelf.waited
    writer()
    report.writing += time.perf_counter() - start - (shelf.waited - waited)


def _raise_failure(futures: Sequence[Future[None]]) -> None:
    """Raise what a writer has failed with, other than for want of blocks."""
    for future in futures:
        error = future.exception() if future.done() else None
        if error is not None and not isinstance(error, _GivenUpError):
            raise error


class _GivenUpError(Exception):
    """The blocks that a writer waits for will never come."""


class _Shelf:
    """Finished blocks, kept in the journal, for writers that wait for them.

    Attributes:
        journal: Where they are kept.
    """

    def __init__(self, journal: Journal, blocks: Sequence[Window]) -> None:
        self.journal = journal
        self._own = threading.local()
        self._blocks = blocks
        self._change = threading.Condition()
        self._given_up = False

    @property
    def waited(self) -> float:
        """Seconds that the calling thread has waited for blocks."""
        return getattr(self._own, 'waited', 0.0)

    def put(self, block: FinishedBlock) -> None:
        """Keep a block and tell those who wait for it."""
        self.journal.store(block.index, block.content)
        with self._change:
            self._change.notify_all()

    def give_up(self) -> None:
        """Tell those who wait that no more blocks come."""
        with self._change:
            self._given_up = True
            self._change.notify_all()

    def labels(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield first row and labels ``(rows, width)`` of all stripes, from the top down."""
        for top, parts in self._stripes():
            yield top, np.concatenate([part['labels'] for part in parts], axis=1)

    def probabilities(self) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """Yield first row, probabilities ``(classes, rows, width)`` and mask of all stripes."""
        for top, parts in self._stripes():
            valid = (np.concatenate([part['valid'] for part in parts], axis=1)
                     if 'valid' in parts[0] else None)
            yield top, np.concatenate([part['probabilities'] for part in parts], axis=2), valid

    def _stripes(self) -> Iterator[tuple[int, list[dict[str, np.ndarray]]]]:
        """Yield the blocks that lie beside one another."""
        tops = sorted({block.top for block in self._blocks})
        for top in tops:
            indices = [index for index, block in enumerate(self._blocks) if block.top == top]
            start = time.perf_counter()
            with self._change:
                self._change.wait_for(
                    lambda: self._given_up or self.journal.done.issuperset(indices))  # noqa: B023
                if self._given_up:
                    raise _GivenUpError
            self._own.waited = self.waited + time.perf_counter() - start
            yield top, [self.journal.load(index) for index in indices]
