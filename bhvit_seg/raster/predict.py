"""Maps a raster: one georeferenced raster in, one georeferenced label raster out.

Any available worker maps blocks. Finished blocks are kept in a journal beside the output, and one
writer for each output writes them from the top down as they arrive. An interrupted run continues
from the journal and gives the same pixels.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import rasterio

from bhvit_seg.errors import explain_interrupt
from bhvit_seg.fileio import write_json
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.windows import Grid, Window, cut_blocks, lay_grid
from bhvit_seg.raster.identity import describe_run, digests, is_finished
from bhvit_seg.raster.journal import PLAN, Journal
from bhvit_seg.raster.mapping import Statistics
from bhvit_seg.raster.memory import OVERVIEWS, Demand, block_size, reading_cache, resident_memory
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
class WindowChoices:
    """Placement of windows.

    Attributes:
        size: Height and width in pixels. Defaults to the training crop.
        overlap: The fraction of a window that its neighbour also covers.
    """

    size: tuple[int, int] | None = None
    overlap: float = 0.25


@dataclass(frozen=True)
class WorkChoices:
    """Execution options; they do not affect the output.

    Attributes:
        max_memory: Bytes that this machine's processes may hold together. Defaults to 2 GB
            besides what this process holds already and what others need for the model.
        workers: Processes on this machine.
        scheduler: The address of a Dask scheduler, whose workers replace those of this machine.
        restart: Discard the finished blocks of an interrupted run.
        overwrite: Replace existing outputs.
    """

    max_memory: int | None = None
    workers: int = 1
    scheduler: str | None = None
    restart: bool = False
    overwrite: bool = False


@dataclass
class MapReport:
    """Result of :func:`map_raster`.

    Attributes:
        out: The label raster.
        probabilities: The raster of probabilities, if one was requested.
        existed: Whether the map existed already.
        resumed: Number of blocks finished by an interrupted run.
        statistics: Windows, and seconds by step, of this run, summed over processes.
        writing: Seconds that writers took for stripes, in parallel to the rest; overviews and the
            check of the file come after them.
        seconds: Seconds in total.
    """

    out: Path
    probabilities: Path | None
    existed: bool = False
    resumed: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    writing: float = 0.0
    seconds: float = 0.0


def map_raster(raster: str | Path, out: Path, model_source: ModelSource, model: Predictor,
               reading: ReadOptions | None = None, windows: WindowChoices | None = None,
               output: OutputOptions | None = None, work: WorkChoices | None = None,
               probabilities: str | None = None) -> MapReport:
    """Map a raster into a GeoTIFF of class ids, 255 where the raster has no data.

    Args:
        raster: Anything that rasterio opens.
        out: The GeoTIFF.
        model_source: Where other processes load the model from.
        model: The model, loaded.
        reading: How the raster is read; channels, fill and type are the model's.
        windows: Placement of windows.
        output: How the GeoTIFF is written.
        work: Execution options.
        probabilities: ``'uint8'`` or ``'float16'``: also write ``<out>_probabilities.tif``, a band
            a class.

    Raises:
        UserError: Something given is wrong, a part of the raster cannot be read, or the output
            cannot be written. Finished blocks are kept, and the same call continues from there.
    """
    start = time.perf_counter()
    windows, output, work = windows or WindowChoices(), output or OutputOptions(), (
        work or WorkChoices())
    options = replace(reading or ReadOptions(), channels=model.channels, fill=model.fill,
                      eight_bit=model.eight_bit)
    probabilities_out = probabilities_path(out) if probabilities else None
    check_outputs({raster: OutputPaths(out, probabilities_out)}, model_source.files, work.overwrite)
    report = MapReport(out, probabilities_out)
    cache = reading_cache(work.max_memory or DEFAULT_MEMORY)
    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=cache))
        source = stack.enter_context(RasterSource(raster, options))
        grid = lay_grid((source.height, source.width), windows.size or model.window,
                        windows.overlap, model.cell)
        identity = describe_run(source, model, grid, output, probabilities)
        wanted = digests(identity, out, probabilities_out)
        if not work.overwrite and is_finished(wanted):
            report.existed = True
            return report
        journal = stack.enter_context(Journal(out, identity, work.restart))
        demand = Demand(
            len(model.classes),
            model.channels * (1 if source.dtype == np.uint8 and not options.value_range else 4),
            {None: 0, 'uint8': 1, 'float16': 2}[probabilities], model.batch)
        # Finds an undeclared collar, once, before the source is sent to workers.
        source.read(Window(0, 0, 1, 1))
        for remark in find_remarks(source, model.ground_sampling_distance):
            print(f'note: {remark}', file=sys.stderr)
        blocks = cut_blocks((source.height, source.width),
                            plan_blocks(journal, grid, demand, work, cache))
        job = Job(source, model_source, grid, blocks, probabilities, cache // work.workers)
        report.resumed = len(journal.done)
        buffer = _BlockBuffer(journal, blocks)
        tags = {path: {IDENTITY_TAG: digest, 'MODEL': model.name}
                for path, digest in wanted.items()}
        writers = []
        # A finished one, which may have been corrected by hand, stays.
        if work.overwrite or not out.exists():
            writers.append(lambda: write_labels(
                out, source, buffer.labels(), model.classes, model.palette, output, tags[out]))
        if probabilities_out is not None and (work.overwrite or not probabilities_out.exists()):
            writers.append(lambda: write_probabilities(
                probabilities_out, source, buffer.probabilities(), model.classes, probabilities,
                output, tags[probabilities_out]))
        with explain_interrupt(lambda: f'{len(journal.done)} of {len(blocks)} blocks of {out} are '
                                       'kept; the same command continues from there'):
            _run(job, model, buffer, writers, work, report, out.name)
        journal.remove()
    report.writing = buffer.writing
    report.seconds = time.perf_counter() - start
    return report


def plan_blocks(journal: Journal, grid: Grid, demand: Demand, work: WorkChoices, cache: int
                ) -> tuple[int, int]:
    """Return height and width of blocks, those of the interrupted run if it has finished any.

    Args:
        journal: The finished blocks, and the plan of an interrupted run.
        grid: Where windows lie.
        demand: The memory that a pixel takes.
        work: The limit of memory, and the number of processes.
        cache: Bytes of the limit that GDAL takes.
    """
    path = journal.folder / PLAN
    if journal.done and path.exists():
        return tuple(json.loads(path.read_text())['block'])
    if work.max_memory is None:
        limit = (DEFAULT_MEMORY - cache) // work.workers
    elif work.scheduler is not None or work.workers == 1:
        limit = work.max_memory - cache - OVERVIEWS - resident_memory()
    else:
        # Every worker loads what this process has loaded.
        limit = (work.max_memory - cache - OVERVIEWS - resident_memory()) // work.workers
        limit -= resident_memory()
    size = block_size(grid, demand, limit)
    write_json(path, {'block': size})
    return size


def _run(job: Job, model: Predictor, buffer: _BlockBuffer, writers: Sequence[Callable[[], None]],
         work: WorkChoices, report: MapReport, title: str) -> None:
    """Map the missing blocks, while writers write finished ones."""
    missing = set(range(len(job.blocks))) - buffer.journal.done
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
        futures = [executor.submit(writer) for writer in writers]
        try:
            for block in finished:
                buffer.put(block)
                report.statistics.add(block.statistics)
                _raise_failure(futures)
            for future in futures:
                future.result()
        except BaseException:
            buffer.give_up()
            _raise_failure(futures)
            raise


def _raise_failure(futures: Sequence[Future[None]]) -> None:
    """Raise the error of a writer that failed, other than for a lack of blocks."""
    for future in futures:
        error = future.exception() if future.done() else None
        if error is not None and not isinstance(error, _GivenUpError):
            raise error


class _GivenUpError(Exception):
    """The run ended before the blocks that a writer waits for."""


class _BlockBuffer:
    """Hands finished blocks, which the journal keeps, to waiting writers.

    Attributes:
        writing: Seconds that writers took for stripes.
    """

    def __init__(self, journal: Journal, blocks: Sequence[Window]) -> None:
        self.journal = journal
        self._blocks = blocks
        self._change = threading.Condition()
        self._given_up = False
        self.writing = 0.0

    def put(self, block: FinishedBlock) -> None:
        """Keep a block and wake the writers."""
        self.journal.store(block.index, block.content)
        with self._change:
            self._change.notify_all()

    def give_up(self) -> None:
        """End the writers: no more blocks come."""
        with self._change:
            self._given_up = True
            self._change.notify_all()

    def labels(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield first row and labels ``(rows, width)`` of all stripes, from the top down."""
        for top, stripe in self._stripes('labels'):
            yield top, stripe['labels']

    def probabilities(self) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """Yield first row, probabilities ``(classes, rows, width)`` and mask of all stripes."""
        for top, stripe in self._stripes('probabilities', 'valid'):
            yield top, stripe['probabilities'], stripe.get('valid')

    def _stripes(self, *names: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield first row and arrays of all stripes, from the top down."""
        for top in sorted({block.top for block in self._blocks}):
            indices = [index for index, block in enumerate(self._blocks) if block.top == top]
            with self._change:
                self._change.wait_for(
                    lambda: self._given_up or self.journal.done.issuperset(indices))  # noqa: B023
                if self._given_up:
                    raise _GivenUpError
            start = time.perf_counter()
            parts = [self.journal.load(index, names) for index in indices]
            stripe = {name: np.concatenate([part[name] for part in parts], axis=-1)
                      for name in parts[0]}
            # The next ones need the memory.
            del parts
            yield top, stripe
            self.writing += time.perf_counter() - start
