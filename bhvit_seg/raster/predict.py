"""Maps one georeferenced raster into one georeferenced label raster.

Any available worker processes blocks. Finished blocks go to a journal; labels are written from the
top down while blocks are mapped, then probabilities. An interrupted run continues from the journal
with the same pixels.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import rasterio

from bhvit_seg.errors import explain_interrupt
from bhvit_seg.fileio import write_json
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.windows import Grid, Window, cut_blocks, lay_grid
from bhvit_seg.progress import WorkProgress
from bhvit_seg.raster.identity import describe_run, digests, is_finished
from bhvit_seg.raster.journal import PLAN, Journal
from bhvit_seg.raster.memory import (
    OVERVIEWS,
    Demand,
    block_size,
    reading_cache,
    resident_memory,
    width_in_time,
)
from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.outputs import IDENTITY_TAG, OutputPaths, check_outputs, probabilities_path
from bhvit_seg.raster.reading import RasterSource
from bhvit_seg.raster.remarks import find_remarks
from bhvit_seg.raster.workers import (
    FinishedBlock,
    Job,
    cluster,
    cut_runs,
    run_here,
    run_in_processes,
    run_on_cluster,
)
from bhvit_seg.raster.writing import OutputOptions, write_labels, write_probabilities

DEFAULT_MEMORY = 2 << 30


@dataclass(frozen=True)
class WindowChoices:
    size: tuple[int, int] | None = None  # height and width in pixels; default: the training crop
    overlap: float = 0.25  # the fraction of a window that its neighbour also covers


@dataclass(frozen=True)
class WorkChoices:
    """Execution options; they do not affect the output.

    ``max_memory`` is the limit in bytes for all processes of this machine, by default 2 GB in
    addition to this process and the models of others. ``scheduler`` is the address of a Dask
    scheduler, whose workers replace those of this machine.
    """

    max_memory: int | None = None
    workers: int = 1
    scheduler: str | None = None
    restart: bool = False
    overwrite: bool = False


@dataclass
class MapReport:
    out: Path
    probabilities: Path | None
    existed: bool = False  # before
    resumed: int = 0  # blocks finished by an interrupted run
    # Windows 'computed' and 'empty', of all processes.
    statistics: Counter = field(default_factory=Counter)
    seconds: float = 0.0


def map_raster(raster: str | Path, out: Path, model_source: ModelSource, model: Predictor,
               reading: ReadOptions | None = None, windows: WindowChoices | None = None,
               output: OutputOptions | None = None, work: WorkChoices | None = None,
               probabilities: str | None = None) -> MapReport:
    """Map a raster into a GeoTIFF of class ids, 255 where the raster has no data.

    Args:
        raster: Anything that rasterio opens.
        model_source: Files from which other processes load the model.
        model: The loaded model.
        reading: How the raster is read; channels, fill and type are the model's.
        output: How the GeoTIFF is written.
        probabilities: ``'uint8'`` or ``'float16'``: also write ``<out>_probabilities.tif``, a band
            per class.

    Raises:
        UserError: An argument is wrong, a part of the raster cannot be read, or the output cannot
            be written. The same call continues from the finished blocks.
    """
    start = time.perf_counter()
    windows, output = windows or WindowChoices(), output or OutputOptions()
    work = work or WorkChoices()
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
        pixels, _ = source.read(Window(0, 0, 1, 1))
        for remark in find_remarks(source, model.ground_sampling_distance):
            print(f'note: {remark}', file=sys.stderr)
        blocks = cut_blocks((source.height, source.width),
                            plan_blocks(journal, grid, demand, work, cache, model, pixels.dtype))
        job = Job(source, model_source, grid, blocks, probabilities, cache // work.workers)
        report.resumed = len(journal.done)
        tags = {path: {IDENTITY_TAG: digest, 'MODEL': model.name}
                for path, digest in wanted.items()}
        stack.enter_context(explain_interrupt(
            lambda: f'{len(journal.done)} of {len(blocks)} blocks of {out} are kept; the same '
                    'command continues from there'))
        finished = stack.enter_context(_map_missing(job, journal.done, model, work, out.name))
        strips = _Strips(journal, blocks, finished, report)
        # A finished map, which may have been corrected by hand, is kept.
        if work.overwrite or not out.exists():
            write_labels(out, source, strips.labels(), model.classes, model.palette, output,
                         tags[out])
        if probabilities_out is not None and (work.overwrite or not probabilities_out.exists()):
            write_probabilities(probabilities_out, source, strips.probabilities(), model.classes,
                                probabilities, output, tags[probabilities_out])
        journal.remove()
    report.seconds = time.perf_counter() - start
    return report


def plan_blocks(journal: Journal, grid: Grid, demand: Demand, work: WorkChoices, cache: int,
                model: Predictor, dtype: np.dtype) -> tuple[int, int]:
    """Return height and width of blocks, those of the interrupted run if it has finished any."""
    path = journal.folder / PLAN
    if journal.done and path.exists():
        return tuple(json.loads(path.read_text())['block'])
    if work.max_memory is None:
        limit = (DEFAULT_MEMORY - cache) // work.workers
    else:
        limit = work.max_memory - cache - OVERVIEWS - resident_memory()
        if work.scheduler is None and work.workers > 1:
            # Every worker loads what this process has loaded.
            limit = limit // work.workers - resident_memory()
    height, width = block_size(grid, demand, limit)
    size = height, width_in_time(grid, model, dtype, width)
    write_json(path, {'block': size})
    return size


@contextlib.contextmanager
def _map_missing(job: Job, done: set[int], model: Predictor, work: WorkChoices, title: str
                 ) -> Iterator[Iterator[FinishedBlock]]:
    """Yield an iterator that maps the missing blocks and shows the progress."""
    with contextlib.ExitStack() as stack:
        run: Callable[..., Iterator[FinishedBlock]]
        run, by, workers = run_here, model, 1
        if work.scheduler is not None:
            run, by = run_on_cluster, stack.enter_context(cluster(work.scheduler))
            workers = max(2, len(by.scheduler_info()['workers']))
        elif work.workers > 1:
            run, by, workers = run_in_processes, work.workers, work.workers
        runs = cut_runs(job.blocks, set(range(len(job.blocks))) - done, workers)
        progress = stack.enter_context(WorkProgress(title, job.count_windows(runs)))
        yield stack.enter_context(contextlib.closing(run(job, runs, by, progress.add)))


@dataclass
class _Strips:
    """The rows of a map in the order of writing; blocks are mapped as needed."""

    journal: Journal
    blocks: Sequence[Window]
    finished: Iterator[FinishedBlock]
    report: MapReport

    def labels(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield first row and labels ``(rows, width)`` of strips from the top down."""
        for top, strip in self._read('labels'):
            yield top, strip['labels']

    def probabilities(self) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """Yield first row, probabilities ``(classes, rows, width)`` and mask of strips."""
        for top, strip in self._read('probabilities', 'valid'):
            yield top, strip['probabilities'], strip.get('valid')

    def _read(self, *names: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for top in sorted({block.top for block in self.blocks}):
            indices = [index for index, block in enumerate(self.blocks) if block.top == top]
            while not self.journal.done.issuperset(indices):
                block = next(self.finished)
                self.journal.store(block.index, block.content)
                self.report.statistics.update(block.statistics)
            parts = [self.journal.load(index, names) for index in indices]
            strip = {name: np.concatenate([part[name] for part in parts], axis=-1)
                      for name in parts[0]}
            # Free memory for the next ones.
            del parts
            yield top, strip
