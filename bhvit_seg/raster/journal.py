"""What keeps finished blocks of a map until the whole map is written.

The journal is a hidden folder beside the output: one file a block, renamed when whole, and the
identity of the run they belong to. A run that was killed finds its blocks there and goes on; a run
with another model or other options is told so. Only whole blocks count: each carries its length
and a CRC-32.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import PARTIAL, remove_leftovers, write_bytes, write_json

FORMAT = 1
_MAGIC = b'BHVBLOCK'
# magic, format, CRC-32 of all bytes after the header, their number
_HEADER = struct.Struct('<8sIIQ')
_LENGTH = struct.Struct('<I')
_BLOCK_NAME = re.compile(r'(\d+)\.block')
_IDENTITY = 'identity.json'
_LOCK = 'lock'


class DamagedBlockError(ValueError):
    """Bytes are not one whole block."""


def encode_block(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays as bytes that :func:`decode_block` reads; equal arrays give equal bytes.

    Arrays of one value, such as the labels of the open sea, take a few bytes; others are deflated
    at the fastest level.

    Args:
        arrays: Arrays of numbers or bools, of any shape, by name.
    """
    directory, parts = [], []
    for name, array in arrays.items():
        assert array.dtype.kind in 'biuf'
        array = np.ascontiguousarray(array).reshape(array.shape)
        single = _is_constant(array)
        content = array.reshape(-1)[:1].tobytes() if single else zlib.compress(array, 1)
        directory.append({'name': name, 'dtype': array.dtype.str, 'shape': array.shape,
                          'single': single, 'bytes': len(content)})
        parts.append(content)
    listing = json.dumps(directory).encode('utf-8')
    body = b''.join([_LENGTH.pack(len(listing)), listing, *parts])
    return _HEADER.pack(_MAGIC, FORMAT, zlib.crc32(body), len(body)) + body


def decode_block(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays, some of them read-only, of :func:`encode_block`.

    Raises:
        DamagedBlockError: The bytes are not one whole block of this format.
    """
    body = _check_block(content)
    start = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    arrays = {}
    for entry in json.loads(bytes(body[_LENGTH.size:start])):
        stored = body[start:start + entry['bytes']]
        start += entry['bytes']
        dtype, shape = np.dtype(entry['dtype']), tuple(entry['shape'])
        if entry['single']:
            arrays[entry['name']] = np.full(shape, np.frombuffer(stored, dtype)[0], dtype)
        else:
            arrays[entry['name']] = np.frombuffer(zlib.decompress(stored), dtype).reshape(shape)
    return arrays


def _check_block(content: bytes) -> memoryview:
    """Return what follows the header of one whole block."""
    if len(content) < _HEADER.size:
        raise DamagedBlockError(f'{len(content)} bytes are too few')
    magic, version, crc, length = _HEADER.unpack_from(content)
    body = memoryview(content)[_HEADER.size:]
    if (magic, version) != (_MAGIC, FORMAT):
        raise DamagedBlockError(f'it is no block of format {FORMAT}')
    if length != len(body) or crc != zlib.crc32(body):
        raise DamagedBlockError('its length or checksum is wrong')
    return body


def _is_constant(array: np.ndarray) -> bool:
    """Whether all elements have the same bytes (NaN, too, and -0 is not 0)."""
    if not array.size:
        return False
    elements = array.reshape(-1).view(f'u{array.itemsize}')
    # Most arrays that vary do so early: look there before at all.
    return bool((elements[:1024] == elements[0]).all() and (elements == elements[0]).all())


def cannot_write(path: str | os.PathLike, reason: str) -> UserError:
    """Return the error for a map, or a part of it, that could not be written to ``path``."""
    return UserError(
        f'cannot write {path}: {reason}; make room there, or see that it can be written to, and '
        'run the same command again, which goes on from the blocks that are finished')


def refuse_folder(out: Path) -> None:
    """Refuse an output that is a folder, which no file can replace."""
    if out.is_dir():
        raise UserError(f'{out} is a folder: give the name of the file to write')


class Journal:
    """The finished blocks of one output, and the exclusive right to write it.

    Attributes:
        out: The output.
        folder: Where blocks lie.
        done: Indices of the blocks that are whole.
    """

    def __init__(self, out: Path, lock: IO[str]) -> None:
        self.out = out
        self.folder = _folder_of(out)
        self.done: set[int] = set()
        self._lock = lock

    @classmethod
    def open(cls, out: str | os.PathLike, identity: Mapping[str, Any], restart: bool = False
             ) -> Journal:
        """Begin the journal of an output, or go on with one of the same identity.

        What killed writers of ``out`` left beside it is deleted.

        Args:
            out: The output.
            identity: What decides the output's content, such that JSON can hold it: a run goes
                on only where all of it is the same.
            restart: Forget what an earlier run has finished.

        Raises:
            UserError: ``out`` is a folder, another process writes it, the journal belongs to a
                run with another identity or is damaged, or the disk cannot be written to.
        """
        out = Path(out)
        refuse_folder(out)
        with _reported(_folder_of(out)):
            lock = _take_lock(out)
            try:
                journal = cls(out, lock)
                remove_leftovers(journal.folder)
                _remove_partial_outputs(out)
                journal._resume({'format': FORMAT, **json.loads(json.dumps(identity))}, restart)
            except BaseException:
                lock.close()
                raise
        return journal

    def store(self, index: int, content: bytes) -> None:
        """Keep a block that :func:`encode_block` made.

        Raises:
            UserError: The disk is full or cannot be written to.
        """
        assert content.startswith(_MAGIC) and not self._lock.closed
        with _reported(self.folder):
            write_bytes(self._path(index), content)
        self.done.add(index)

    def load(self, index: int) -> bytes:
        """Return a block that is done.

        Raises:
            UserError: It was damaged or deleted since; it no longer counts as done.
        """
        assert index in self.done
        path = self._path(index)
        try:
            content = path.read_bytes()
            _check_block(content)
        except (OSError, DamagedBlockError) as error:
            self.done.discard(index)
            with contextlib.suppress(OSError):
                path.unlink()
            raise UserError(f'the finished block {path} was damaged ({error}): run the same '
                            'command again, which computes it anew') from error
        return content

    def remove(self) -> None:
        """Delete the journal of an output that is finished, and end it."""
        with _reported(self.folder):
            # The new name has to be on the disk before what it was made of goes.
            _sync_folder(self.out.parent)
            shutil.rmtree(self.folder)
        self.close()

    def close(self) -> None:
        """Let other processes write the output; the blocks stay."""
        self._lock.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _path(self, index: int) -> Path:
        return self.folder / f'{index:08d}.block'

    def _resume(self, identity: dict[str, Any], restart: bool) -> None:
        """Find the blocks of this identity."""
        path = self.folder / _IDENTITY
        if restart or not path.exists():
            for block, _ in self._blocks():
                block.unlink()
            write_json(path, identity)
            return
        try:
            begun = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as error:
            raise UserError(f'{path} is damaged, so that what was finished of {self.out} cannot '
                            'be used: begin anew with --restart') from error
        differences = _name_differences(begun, identity)
        if differences:
            raise UserError(
                f'{self.out} was begun by another run ({differences}): run what was begun, give '
                'another output, or begin anew with --restart')
        for block, index in self._blocks():
            try:
                _check_block(block.read_bytes())
            except (OSError, DamagedBlockError):
                block.unlink()
            else:
                self.done.add(index)

    def _blocks(self) -> Iterator[tuple[Path, int]]:
        """Yield files of blocks, and which they are."""
        for path in sorted(self.folder.iterdir()):
            match = _BLOCK_NAME.fullmatch(path.name)
            if match:
                yield path, int(match[1])


def _folder_of(out: Path) -> Path:
    return out.with_name(f'.{out.name}.work')


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Turn a failure of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error.strerror or str(error)) from error


def _take_lock(out: Path) -> IO[str]:
    """Return the lock file of an output's journal, locked until it is closed.

    A record lock, not ``flock``: children that outlive a killed process do not inherit it.
    """
    # Only POSIX systems have it; this module is imported on others, too.
    import fcntl

    path = _folder_of(out) / _LOCK
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not truncated: it may be another's.
        lock = open(path, 'a+', encoding='utf-8')
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                lock.seek(0)
                owner = lock.read().strip() or 'another process'
                lock.close()
                raise UserError(f'{out} is being written by {owner}: wait until it ends, or give '
                                'another output') from error
            # Some network file systems know no locks; nobody can be kept out there.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                lock.close()
                raise
        # Whoever had the lock may have finished, and deleted it, since it was opened.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                lock.seek(0)
                lock.truncate()
                lock.write(f'process {os.getpid()} of {socket.gethostname()}\n')
                lock.flush()
                return lock
        lock.close()


def _remove_partial_outputs(out: Path) -> None:
    """Delete what killed writers left of an output and of the files that go with it."""
    mine = re.compile(rf'\.({re.escape(out.stem)}|{re.escape(out.name)}\.aux)\.\d+(-\d+)?'
                      rf'{re.escape(PARTIAL)}({re.escape(out.suffix)}|\.xml).*')
    for path in sorted(out.parent.iterdir()):
        if mine.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the names of a folder's files written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_differences(then: Any, now: Any) -> str:
    """Say which entries differ, and how, the first three of them; nothing where none does."""
    # As text, since NaN is not equal to itself.
    before = {key: _text(value) for key, value in _flatten(then)}
    after = {key: _text(value) for key, value in _flatten(now)}
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    told = [f'{key}: {_shorten(before.get(key, "absent"))} then, '
            f'{_shorten(after.get(key, "absent"))} now' for key in keys[:3]]
    if len(keys) > 3:
        told.append(f'and {len(keys) - 3} more')
    return '; '.join(told)


def _flatten(entry: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings under dotted names."""
    if isinstance(entry, dict) and entry:
        for key, value in entry.items():
            yield from _flatten(value, f'{name}.{key}' if name else key)
    else:
        yield name, entry


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f'{text[:57]}...'
