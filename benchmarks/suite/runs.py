"""One training of a suite: its folder, how far it is, and how it goes on.

A run's folder holds what ``tools/train.py`` and ``tools/test.py`` leave there, and a log of both;
beside it is the config that it is made with. How far a run is shows in these files alone, so a
suite that was killed goes on where it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmengine.config import Config

from benchmarks.suite.suite import Row, Suite
from bhvit_seg.errors import UserError, first_line
from bhvit_seg.fileio import make_output_folder, write_json, write_text
from bhvit_seg.training.checkpoint import find_resumable

LOG, LOCK, GIVEN = 'log.txt', '.lock', 'given_checkpoints.json'
POLL_SECONDS = 1.0
# Progress is told at each tenth of a training.
PARTS = 10


class RunFailed(Exception):
    """A run ended with an error; the message is a sentence."""


@dataclass
class Run:
    """A row with one of its seeds.

    Attributes:
        row: The row.
        seed: The seed.
        folder: Where what it leaves is.
    """

    row: Row
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f'{self.row.name}, seed {self.seed}'

    @property
    def sources(self) -> dict[str, Run]:
        """The runs whose checkpoints it needs, by row."""
        return {name: Run(row, self.seed, self.folder.parents[1] / name / self.folder.name)
                for name, row in self.row.sources.items()}

    @property
    def config(self) -> Path:
        """The config that it is made with; in the folder mmengine would write its own over it."""
        return self.folder.with_suffix('.py')

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of its end, whether it is there yet or not."""
        return self.folder / f'iter_{self.row.iterations}.pth'

    @property
    def scores_path(self) -> Path:
        return self.folder / f'test_{self.checkpoint.stem}.json'

    @property
    def scores(self) -> dict[str, Any] | None:
        """What ``tools/test.py`` found; None before that, and of a run with other settings."""
        if not (self.scores_path.is_file() and self.checkpoint.is_file()) or self.obstacle:
            return None
        return json.loads(self.scores_path.read_text())

    @property
    def obstacle(self) -> str | None:
        """A sentence if the folder has a run with other settings than the suite has now.

        Among them are the checkpoints that it was given, and all of this of the runs they are of.
        """
        for source in self.sources.values():
            if source.obstacle:
                return source.obstacle
        if not self.config.is_file():
            return None
        try:
            there = _stored_settings(self.config, self.config.stat().st_mtime_ns)
            wanted = dict(_settings(config_of(self).to_dict()))
            key = next((key for key in {**wanted, **there}
                        if key not in self.row.checkpoints
                        and _portable(key, there.get(key)) != _portable(key, wanted.get(key))),
                       None) or self._other_checkpoint()
        except Exception as error:
            key = first_line(error)
        if key is None:
            return None
        return (f'{self.folder} holds a run with other settings than the suite has now ({key}, '
                f'see {self.config}): delete both, or give another --work-dir')

    @property
    def given_path(self) -> Path:
        """Where the checkpoints that it was given are noted."""
        return self.folder / GIVEN

    def _other_checkpoint(self) -> str | None:
        """An option whose checkpoint is no more the one that the run was given."""
        if not self.given_path.is_file():
            return None
        given = json.loads(self.given_path.read_text())
        return next((option for option, name in self.row.checkpoints.items()
                     if self.sources[name].checkpoint.is_file()
                     and given.get(option) != digest(self.sources[name].checkpoint)), None)

    def state(self) -> str:
        """How far it is, in words."""
        if self.obstacle:
            return f'refused: {self.obstacle}'
        if self.scores is not None:
            return 'done'
        if self.checkpoint.is_file():
            return 'trained, to be tested'
        checkpoint, *_ = find_resumable(self.folder)
        if checkpoint is not None:
            return f'to be resumed from {checkpoint.stem}'
        return f'to be trained for {self.row.iterations} iterations'


def runs_of(suite: Suite, work_dir: str | Path) -> list[Run]:
    """All runs of a suite, in the order in which they can be done: seed by seed.

    A row's checkpoint is there before the rows that need it, and a first table with one seed of
    each row is there soon.
    """
    work_dir = Path(work_dir)
    seeds = sorted({seed for row in suite.rows for seed in row.seeds})
    return [Run(row, seed, work_dir / row.name / f'seed_{seed}')
            for seed in seeds for row in suite.rows if seed in row.seeds]


def config_of(run: Run) -> Config:
    """The config that a run is made with."""
    cfg = Config(run.row.cfg.to_dict())
    cfg.merge_from_dict({option: str(run.sources[other].checkpoint.resolve())
                         for option, other in run.row.checkpoints.items()})
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': run.seed}
    return cfg


def _settings(node: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Each setting by its dotted key."""
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        yield prefix, node
        return
    for name, child in items:
        yield from _settings(child, f'{prefix}.{name}' if prefix else str(name))


@cache
def _stored_settings(config: Path, written: int) -> dict[str, Any]:
    """Settings of a config that was written at a time (in nanoseconds)."""
    return dict(_settings(Config.fromfile(str(config), import_custom_modules=False).to_dict()))


def _portable(key: str, value: Any) -> Any:
    """A setting as it is on any machine: of another config and of the data the name alone."""
    if isinstance(value, str) and (
            key.endswith('data_root') or value.endswith('.py') and os.path.isabs(value)):
        return Path(value).name
    return value


def digest(path: Path) -> str:
    """What tells a file from any other."""
    status = path.stat()
    return _digest(path, status.st_mtime_ns, status.st_size)


@cache
def _digest(path: Path, written: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_config(run: Run) -> None:
    """Make the folder of a run, and write its config beside it.

    Raises:
        UserError: The folder has a run with other settings.
    """
    make_output_folder(run.folder, '--work-dir')
    if run.obstacle:
        raise UserError(run.obstacle)
    write_text(run.config, config_of(run).pretty_text + '\n')


def lock(work_dir: Path) -> IO[str]:
    """Keep other processes from working on the same suite, until the result is closed.

    Tools that were started meanwhile inherit the lock: where the suite was killed and one of them
    still trains, nobody else does.

    Raises:
        UserError: One does so already.
    """
    # Only POSIX systems have it; this module is imported on others, too.
    import fcntl

    held = open(make_output_folder(work_dir, '--work-dir') / LOCK, 'a+', encoding='utf-8')
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(held.fileno(), True)
    except OSError as error:
        # Some network file systems know no locks; nobody can be kept out there.
        if error.errno in (errno.EAGAIN, errno.EACCES):
            held.close()
            raise UserError(f'another process works on {work_dir}: wait until it ends, or give '
                            'another --work-dir') from error
    return held


def carry_out(run: Run, tools: Path, say: Callable[[str], None]) -> None:
    """Train and test what is not trained and tested yet.

    Args:
        run: The run.
        tools: The folder of ``train.py`` and ``test.py``.
        say: What is called with a line of progress.

    Raises:
        RunFailed: One of the two ended with an error.
        UserError: As for :func:`write_config`.
    """
    write_config(run)
    if run.scores is not None:
        return
    for source in run.sources.values():
        if not source.checkpoint.is_file():
            raise RunFailed(f'it needs the checkpoint of {source.row.name!r}, which is not there')
    config, folder = str(run.config), ['--work-dir', str(run.folder)]
    if not run.checkpoint.is_file():
        if run.sources:
            write_json(run.given_path, {option: digest(run.sources[name].checkpoint)
                                        for option, name in run.row.checkpoints.items()})
        _call([str(tools / 'train.py'), config, *folder, '--resume'], run, say)
        if not run.checkpoint.is_file():
            raise RunFailed(f'its training left no {run.checkpoint.name}; see '
                            f'{run.folder / LOG}')
    _call([str(tools / 'test.py'), config, str(run.checkpoint), *folder], run, say)
    if run.scores is None:
        raise RunFailed(f'its test left no {run.scores_path.name}; see {run.folder / LOG}')


def _call(command: list[str], run: Run, say: Callable[[str], None]) -> None:
    """Run a tool with its output in the run's log, telling how far it is."""
    path = run.folder / LOG
    told = PARTS * last_iteration(run.folder) // run.row.iterations
    with open(path, 'ab') as log:
        begin = log.tell()
        log.write(f'$ {" ".join(command)}\n'.encode())
        log.flush()
        process = subprocess.Popen([sys.executable, *command], stdout=log,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   close_fds=False,  # for the lock; others are not inheritable
                                   env={**os.environ, 'PYTHONPATH': _python_path()})
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                done = last_iteration(run.folder)
                part = PARTS * done // run.row.iterations
                if told < part < PARTS:
                    told = part
                    say(f'{run.name}: iteration {done} of {run.row.iterations}')
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        with open(path, 'rb') as log:
            log.seek(begin)
            output = log.read().decode('utf-8', 'replace')
        raise RunFailed(f'{Path(command[0]).name} {_reason(output, process.returncode)} '
                        f'(see {path})')


def _python_path() -> str:
    """Where the tools find this package, whether it is installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))


def _reason(output: str, status: int) -> str:
    """Say why a tool ended, by what it printed."""
    if status < 0:
        return f'was killed by signal {-status}'
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('error: ')]
    return f'said: {(errors or lines)[-1]}'


def last_iteration(folder: Path) -> int:
    """The last iteration whose losses a run has logged; 0 before the first."""
    losses = read_curves(folder).get('loss', {})
    return max(losses, default=0)


def read_curves(folder: Path) -> dict[str, dict[int, float]]:
    """What a run logged, by name and iteration; of a resumed run what was logged last."""
    curves: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line that a killed run did not finish
            step = record.get('step')
            if isinstance(step, int):
                for name, value in record.items():
                    if isinstance(value, (int, float)) and name != 'step':
                        curves.setdefault(name, {})[step] = value
    return curves
