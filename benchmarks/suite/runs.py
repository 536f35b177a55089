"""One training of a suite: its folder, its state, and how it continues.

A run's folder has what ``bhvit-seg train`` and ``bhvit-seg test`` write, and a log of both; beside
it is the config of the run. These files alone say how far a run is, so that a suite that was killed
continues where it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pprint
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from benchmarks.suite.suite import Row, Suite
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import make_output_folder, write_text

LOG, LOCK = 'log.txt', '.lock'
COMMAND = [sys.executable, '-m', 'bhvit_seg']


class RunFailed(Exception):
    """A run ended with an error; the message is a sentence."""


@dataclass
class Run:
    """A row of a suite with one of its seeds.

    Attributes:
        row: The row.
        seed: The seed.
        folder: Where its files are.
    """

    row: Row
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f'{self.row.name}, seed {self.seed}'

    @property
    def config(self) -> Path:
        """The config of the run, beside its folder: inside, mmengine would overwrite it."""
        return self.folder.with_suffix('.py')

    @property
    def checkpoint(self) -> Path:
        """The checkpoint after the last iteration, whether it exists or not."""
        return self.folder / f'iter_{self.row.iterations}.pth'

    @property
    def scores_path(self) -> Path:
        return self.folder / f'test_{self.checkpoint.stem}.json'

    @cached_property
    def sources(self) -> dict[str, Run]:
        """By dotted key, the run whose checkpoint an option is set to."""
        return {option: Run(row, self.seed, self.folder.parents[1] / row.name / self.folder.name)
                for option, row in self.row.sources.items()}

    def text(self) -> str:
        """The config of the run as a file, with the digests of the checkpoints that it reads."""
        cfg = self.row.cfg.copy()
        cfg.merge_from_dict({option: str(source.checkpoint)
                             for option, source in self.sources.items()})
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': self.seed}
        digests = [f'# {option}: {hashlib.sha256(source.checkpoint.read_bytes()).hexdigest()}'
                   for option, source in self.sources.items() if source.checkpoint.is_file()]
        return '\n'.join([*digests, *(
            f'{key} = {pprint.pformat(value, width=100, sort_dicts=False)}'
            for key, value in cfg.to_dict().items())]) + '\n'

    def obstacle(self) -> str | None:
        """Return a sentence if the run, or one that it learns from, has other settings now."""
        for source in self.sources.values():
            if obstacle := source.obstacle():
                return obstacle
        if not self.config.is_file():
            return None
        there, wanted = self.config.read_text().splitlines(), self.text().splitlines()
        if there == wanted:
            return None
        line = next((old or new for old, new in zip([*there, ''], [*wanted, '']) if old != new), '')
        return (f'{self.folder} holds a run with other settings than the suite has now (first '
                f'difference in {self.config}: {line.strip()!r}): delete both, or give another '
                '--work-dir')

    def scores(self) -> dict[str, Any] | None:
        """Return what ``bhvit-seg test`` wrote; None before that, and with other settings."""
        if not self.scores_path.is_file() or not self.checkpoint.is_file() or self.obstacle():
            return None
        return json.loads(self.scores_path.read_text())

    def state(self) -> str:
        """Say how far the run is."""
        if obstacle := self.obstacle():
            return f'refused: {obstacle}'
        if self.scores() is not None:
            return 'done'
        if self.checkpoint.is_file():
            return 'trained, to be tested'
        if list(self.folder.glob('iter_*.pth')):
            return f'to be resumed until iteration {self.row.iterations}'
        return f'to be trained for {self.row.iterations} iterations'


def runs_of(suite: Suite, work_dir: Path) -> list[Run]:
    """Return all runs of a suite seed by seed, those that others learn from before these."""
    seeds = sorted({seed for row in suite.rows for seed in row.seeds})
    return [Run(row, seed, work_dir / row.name / f'seed_{seed}')
            for seed in seeds for row in suite.rows if seed in row.seeds]


def lock(work_dir: Path) -> IO[str]:
    """Keep other processes from working on the same suite until the result is closed.

    A training inherits the lock: while one outlives a suite that was killed, no other starts.

    Raises:
        UserError: Another process has the lock.
    """
    held = open(make_output_folder(work_dir, '--work-dir') / LOCK, 'a', encoding='utf-8')
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.close()
        raise UserError(f'another process works on {work_dir}: wait until it ends, or give '
                        'another --work-dir') from error
    os.set_inheritable(held.fileno(), True)
    return held


def carry_out(run: Run, data_root: str | None = None) -> None:
    """Train and test what is not trained and tested yet.

    Args:
        run: The run.
        data_root: The folder of the data. Defaults to the config's.

    Raises:
        RunFailed: The training or the test ended with an error.
        UserError: The folder has a run with other settings.
    """
    make_output_folder(run.folder, '--work-dir')
    if obstacle := run.obstacle():
        raise UserError(obstacle)
    if run.scores() is not None:
        return
    for source in run.sources.values():
        if not source.checkpoint.is_file():
            raise RunFailed(f'it needs the checkpoint of {source.name}, which does not exist')
    write_text(run.config, run.text())
    options = ['--work-dir', str(run.folder), *(['--data-root', data_root] if data_root else [])]
    if not run.checkpoint.is_file():
        _call(run, 'train', str(run.config), '--resume', *options)
    _call(run, 'test', str(run.config), str(run.checkpoint), *options)


def _call(run: Run, *arguments: str) -> None:
    """Run a command of the package with its output in the run's log."""
    path = run.folder / LOG
    command = [*COMMAND, *arguments]
    with open(path, 'a+', encoding='utf-8', errors='replace') as log:
        print('$', *command, file=log, flush=True)
        begin = log.tell()
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT,
                                stdin=subprocess.DEVNULL, close_fds=False).returncode
        log.seek(begin)
        lines = [line.strip() for line in log if line.strip()]
    if status < 0:
        raise RunFailed(f'{arguments[0]} was killed by signal {-status} (see {path})')
    if status:
        errors = [line for line in lines if line.startswith('error: ')]
        raise RunFailed(f'{arguments[0]} ended with {(errors or lines or [status])[-1]!r} '
                        f'(see {path})')
