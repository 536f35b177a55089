"""Workers that map blocks of a :class:`Job`: this process, others of this machine, or a Dask
cluster. One that dies is replaced, and its blocks are mapped again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple

import rasterio

from bhvit_seg.errors import UserError, first_line, load_package
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.windows import Grid, Window
from bhvit_seg.raster.journal import encode_block
from bhvit_seg.raster.mapping import map_run, windows_of_run
from bhvit_seg.raster.reading import RasterSource

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import distributed

ATTEMPTS = 3
# Blocks: longer runs compute fewer windows twice, shorter ones lose less with a worker that dies.
LONGEST_RUN = 8


@dataclass(frozen=True)
class Job:
    """Arguments of ``map_run`` for a worker."""

    source: RasterSource
    model: ModelSource
    grid: Grid
    blocks: tuple[Window, ...]
    probabilities: str | None
    cache: int  # bytes of decoded pixels that GDAL may keep in each process

    def count_windows(self, runs: Iterable[Sequence[int]]) -> int:
        """Return the number of windows of runs of blocks."""
        return sum(len(rows) * len(columns) for rows, columns in (
            windows_of_run(self.grid, [self.blocks[index] for index in run]) for run in runs))


class FinishedBlock(NamedTuple):
    """A mapped block of a job, encoded by ``encode_block``."""

    index: int
    content: bytes
    statistics: Counter


def cut_runs(blocks: Sequence[Window], missing: Collection[int], workers: int = 1
             ) -> list[list[int]]:
    """Join vertically adjacent missing blocks, which share windows, to runs for some workers."""
    longest = len(blocks) if workers == 1 else min(LONGEST_RUN, -(-len(missing) // workers))
    runs: list[list[int]] = []
    for index in sorted(missing, key=lambda index: (blocks[index].left, blocks[index].top)):
        block, last = blocks[index], blocks[runs[-1][-1]] if runs else None
        below = last is not None and (last.left, last.bottom) == (block.left, block.top)
        if below and len(runs[-1]) != longest:
            runs[-1].append(index)
        else:
            runs.append([index])
    # From the top down, as the file is written.
    return sorted(runs, key=lambda run: (blocks[run[0]].top, blocks[run[0]].left))


def run_here(job: Job, runs: Sequence[Sequence[int]], model: Predictor,
             on_windows: Callable[[int], None]) -> Iterator[FinishedBlock]:
    for run in runs:
        statistics: Counter = Counter()
        finished = map_run(job.source, model, job.grid, [job.blocks[index] for index in run],
                           job.probabilities, statistics, on_windows)
        for index, arrays in zip(run, finished):
            yield FinishedBlock(index, encode_block(arrays), statistics.copy())
            statistics.clear()


def run_in_processes(job: Job, runs: Sequence[Sequence[int]], workers: int,
                     on_windows: Callable[[int], None]) -> Iterator[FinishedBlock]:
    """Map runs of blocks in other processes of this machine, which are replaced if they die."""
    waiting = [list(run) for run in runs]
    deaths = 0
    while waiting:
        try:
            with tempfile.TemporaryDirectory() as folder, _pool(workers) as pool:
                with _blocked_interrupts():
                    futures = {pool.submit(_map_to_files, job, run, folder): run for run in waiting}
                while futures:
                    done, _ = wait(futures, return_when=FIRST_COMPLETED)
                    for future in done:
                        finished = future.result()
                        waiting.remove(run := futures.pop(future))
                        deaths = 0
                        on_windows(job.count_windows([run]))
                        for index, path, statistics in finished:
                            yield FinishedBlock(index, path.read_bytes(), statistics)
                            path.unlink()
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == ATTEMPTS:
                raise UserError(
                    f'worker processes were killed {ATTEMPTS} times in succession, most often for '
                    'lack of memory: give fewer --workers or less --max-memory; finished blocks '
                    'are kept, and the same command continues from there') from error


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool; an error in the block ends its processes at once."""
    # Forked copies of a process with threads may hang, so workers are spawned.
    context = multiprocessing.get_context('spawn')
    reader, writer = context.Pipe(duplex=False)
    with reader, writer:
        pool = ProcessPoolExecutor(workers, context, _begin_worker, (reader,))
        try:
            yield pool
        except BaseException:
            writer.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Block Ctrl-C in processes started meanwhile, which would print tracebacks while they import;
    their parent handles it."""
    if not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(pipe: Connection) -> None:
    """End this process when the other end of a pipe is closed, as by the death of the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def cluster(scheduler: str) -> Iterator[distributed.Client]:
    """Yield a client of a Dask cluster, or raise a UserError that says what is missing."""
    distributed = load_package('distributed')
    try:
        client = distributed.Client(scheduler, timeout=30, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(f'no Dask scheduler answers at --scheduler {scheduler}: '
                        f'{first_line(error)}') from error
    with client:
        yield client


def run_on_cluster(job: Job, runs: Sequence[Sequence[int]], client: distributed.Client,
                   on_windows: Callable[[int], None]) -> Iterator[FinishedBlock]:
    """Map runs of blocks on the workers of a Dask cluster, which are replaced if they die."""
    import distributed

    futures = {client.submit(_map_whole_run, job, run, pure=False, retries=ATTEMPTS - 1): run
               for run in runs}
    try:
        for future in distributed.as_completed(list(futures), loop=client.loop):
            finished = future.result()
            on_windows(job.count_windows([futures.pop(future)]))
            yield from finished
    except OSError as error:
        raise UserError(f'the Dask scheduler was lost ({first_line(error)}): finished blocks are '
                        'kept, and the same command continues from there') from error
    except distributed.KilledWorker as error:
        raise UserError(f'workers of the cluster were killed repeatedly over {job.source.path}, '
                        'most often for lack of memory: give less --max-memory') from error
    finally:
        client.cancel(list(futures))


_current: tuple[bytes, Job, Predictor] | None = None
_one_at_a_time = threading.Lock()


def _map_whole_run(job: Job, run: Sequence[int]) -> list[FinishedBlock]:
    """Map a run of blocks; raster and model stay open for the next run in this process."""
    global _current
    with _one_at_a_time:
        key = pickle.dumps(job)
        if _current is None or _current[0] != key:
            _current = key, job, job.model.load()
        _, job, model = _current
        with rasterio.Env(GDAL_CACHEMAX=job.cache):
            return list(run_here(job, [run], model, lambda count: None))


def _map_to_files(job: Job, run: Sequence[int], folder: str) -> list[tuple[int, Path, Counter]]:
    """Map a run of blocks to files. What goes through the pipe of the pool is then so short that it
    is written at once: its reader would wait forever for the rest of a process that was killed."""
    finished = []
    for index, content, statistics in _map_whole_run(job, run):
        path = Path(folder) / str(index)
        path.write_bytes(content)
        finished.append((index, path, statistics))
    return finished
