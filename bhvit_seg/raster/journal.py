"""Storage of finished blocks until the whole map is written.

The journal is a hidden folder beside the output with an ``.npz`` file per block, renamed when
whole, and the identity of the run. The same command continues from it; another model or other
options are an error. Only blocks with correct checksums count.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from bhvit_seg.errors import UserError, free_space
from bhvit_seg.fileio import PARTIAL, remove_leftovers, write_bytes, write_json

FORMAT = 2
IDENTITY, PLAN, LOCK = 'identity.json', 'plan.json', 'lock'
# What a damaged .npz file may raise.
_DAMAGE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile,
           zlib.error)


def encode_block(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays by name as ``.npz``, fast: ``np.savez_compressed`` takes five times as long."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return content.getvalue()


def cannot_write(path: str | os.PathLike, reason: str) -> UserError:
    """Return the error for a map, or a part of it, that could not be written to ``path``."""
    return UserError(
        f'cannot write {path}: {reason} ({free_space(path)}); make room there, or see that it '
        'can be written to, and run the same command again, which continues from the blocks '
        'that are finished')


def folder_of(out: Path) -> Path:
    return out.with_name(f'.{out.name}.work')


class Journal:
    """The finished blocks of one output, and the exclusive right to write it; a context manager.

    Leftovers of killed writers are deleted. ``identity`` determines the output's content, for JSON:
    an earlier run continues only if it is equal; ``restart`` discards its blocks.

    Raises:
        UserError: Another process writes the output, the journal has another identity or is
            damaged, or the disk cannot be written to.
    """

    def __init__(self, out: str | os.PathLike, identity: Mapping[str, Any],
                 restart: bool = False) -> None:
        self.out = Path(out)
        self.folder = folder_of(self.out)
        self.done: set[int] = set()  # indices of the whole blocks
        with _reported(self.folder), contextlib.ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = stack.enter_context(filelock.FileLock(self.folder / LOCK, timeout=0))
            except filelock.Timeout as error:
                raise UserError(f'{out} is being written by another process: wait until it ends, '
                                'or give another output') from error
            remove_leftovers(self.folder)
            mine = re.compile(
                rf'\.({re.escape(self.out.stem)}|{re.escape(self.out.name)}\.aux)\.\d+(-\d+)?'
                rf'{re.escape(PARTIAL)}({re.escape(self.out.suffix)}|\.xml).*')
            for path in sorted(self.out.parent.iterdir()):
                if mine.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            self._resume({'format': FORMAT, **json.loads(json.dumps(identity))}, restart)
            # From now on close() releases it.
            stack.pop_all()

    def _resume(self, identity: dict[str, Any], restart: bool) -> None:
        path = self.folder / IDENTITY
        if restart or not path.exists():
            for block in self._blocks().values():
                block.unlink()
            write_json(path, identity)
            return
        try:
            begun = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as error:
            raise UserError(f'{path} is damaged, so that what was finished of {self.out} cannot '
                            'be used: start again with --restart') from error
        # As text: NaN is not equal to NaN.
        other = [key for key in {**begun, **identity}
                 if json.dumps(begun.get(key)) != json.dumps(identity.get(key))]
        if other:
            raise UserError(
                f'{self.out} was begun by another run, which differs in {", ".join(other)}: run '
                'what was begun, give another output, or start again with --restart')
        for index, block in self._blocks().items():
            try:
                with zipfile.ZipFile(block) as archive:
                    if archive.testzip() is not None:
                        raise zipfile.BadZipFile
            except _DAMAGE:
                block.unlink()
            else:
                self.done.add(index)

    def store(self, index: int, content: bytes) -> None:
        with _reported(self.folder):
            write_bytes(self._path(index), content)
        self.done.add(index)

    def load(self, index: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return arrays of a finished block, those of ``names`` that it has, or all; a UserError if
        it was damaged, and it no longer counts as done."""
        path = self._path(index)
        try:
            with np.load(path) as arrays:
                return {name: arrays[name] for name in names or arrays if name in arrays}
        except _DAMAGE as error:
            self.done.discard(index)
            with contextlib.suppress(OSError):
                path.unlink()
            raise UserError(f'the finished block {path} was damaged ({error}): run the same '
                            'command again, which computes it again') from error

    def remove(self) -> None:
        """Delete the journal of a finished output, but no files of others, and close it."""
        with _reported(self.folder):
            for path in [*self._blocks().values(),
                         *(self.folder / name for name in (PLAN, IDENTITY, LOCK))]:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        self.close()

    def close(self) -> None:
        """Let other processes write the output; the blocks stay."""
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _path(self, index: int) -> Path:
        return self.folder / f'{index:08d}.npz'

    def _blocks(self) -> dict[int, Path]:
        return {int(path.stem): path for path in sorted(self.folder.glob('*.npz'))
                if path.stem.isdecimal()}


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error.strerror or str(error)) from error
