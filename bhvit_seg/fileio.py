"""Atomic writing: a file gets its name when it is whole; checks of files that are named."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bhvit_seg.errors import DISK_ERRORS, UserError

PACKED_MAGIC = b'BHVITSEG'  # what a packed model begins with
PARTIAL = '.partial'
LEFTOVER = re.compile(r'\..+\.\d+(-\d+)?\.partial(\.[^.]*)?', re.DOTALL)
_numbers = itertools.count()  # threads may write the same file


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Yield the name to write to; rename it to ``path`` when the block ends without an error.

    The name is hidden, lies in the same folder and keeps the suffix of ``path``. Parent folders are
    created, links are followed, permissions of a replaced file are kept, and devices and named
    pipes are written to directly.

    Raises:
        IsADirectoryError: ``path`` is a folder.
        PermissionError: ``path`` is a file that may not be written.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if path.exists() and not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / (path.name or 'output')
            yield partial
            path.write_bytes(partial.read_bytes())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # of 255 bytes that a name may have
    stem = os.fsdecode(os.fsencode(path.stem)[:128])
    partial = path.with_name(f'.{stem}.{os.getpid()}-{next(_numbers)}{PARTIAL}{path.suffix}')
    try:
        yield partial
        if path.exists():
            shutil.copymode(path, partial)
        with open(partial, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno in DISK_ERRORS and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    with write_atomically(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | os.PathLike, content: str) -> None:
    """Write ``content`` to ``path`` atomically, in UTF-8."""
    write_bytes(path, content.encode('utf-8'))


def write_json(path: str | os.PathLike, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + '\n')


def remove_leftovers(folder: str | os.PathLike) -> list[Path]:
    """Delete partial files of killed writers in the folder of a single writer; return them."""
    leftovers = sorted(path for path in Path(folder).glob(f'.*{PARTIAL}*')
                       if LEFTOVER.fullmatch(path.name))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return leftovers


def make_output_folder(path: str | os.PathLike, name: str) -> Path:
    """Create the folder ``path`` of the argument ``name``; a UserError if it is not writable."""
    folder = Path(path)
    probe = folder / f'.write-test.{os.getpid()}{PARTIAL}'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'cannot write to the folder {folder} ({name}): {error.strerror}; '
            'give a folder that can be made and written to') from error
    return folder


def identify(path: str | os.PathLike) -> object:
    """Return a key that all names of a file, also links, share, whether it exists or not."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return os.path.realpath(path)


def stamp_of(path: str | os.PathLike) -> list[int]:
    """Return size in bytes and modification time of a file, which change with its content."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def check_checkpoint(path: str | os.PathLike) -> None:
    """Raise a UserError unless a file begins as checkpoints of torch do: as a zip or a pickle."""
    if not Path(path).is_file():
        raise UserError(f'no checkpoint at {path}: give the path of a .pth file')
    try:
        with open(path, 'rb') as file:
            head = file.read(len(PACKED_MAGIC))
    except OSError as error:
        raise UserError(f'the checkpoint {path} cannot be read: {error.strerror}') from error
    if head == PACKED_MAGIC:
        raise UserError(f'{path} is a packed model, and a checkpoint of torch (.pth) is expected: '
                        'give it to predict or predict-raster with --packed')
    if not head.startswith((b'PK', b'\x80')):
        raise UserError(f'{path} is not a checkpoint of torch: it begins with {head!r}; give a '
                        '.pth file')


def refuse_inputs(outputs: Iterable[str | os.PathLike], inputs: Iterable[str | os.PathLike],
                  option: str) -> None:
    """Raise a UserError if an output is an input, under any name; ``option`` is what to change."""
    read = {identify(path): path for path in inputs}
    for path in outputs:
        if identify(path) in read:
            raise UserError(f'{path} would be written, but it is an input '
                            f'({read[identify(path)]}): give another {option}')
