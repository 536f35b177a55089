"""Loading the compiled engine in ``csrc``, and properties of the processor."""

from __future__ import annotations

import os
import stat
from types import ModuleType
from typing import Any, Callable

from bhvit_seg.errors import UserError
from bhvit_seg.extras import engine_failure, reinstall_line

MAX_BYTES = 1 << 31


def load_engine() -> ModuleType:
    """Return the extension module, or raise a UserError if it is not built."""
    try:
        from . import _engine
    except ImportError as error:
        reason = engine_failure() or str(error)
        raise UserError(
            f'the engine of packed models is not built for this Python ({reason}): install a C++ '
            f'compiler (Debian, Ubuntu: apt-get install g++) and run {reinstall_line()}'
        ) from error
    return _engine


def run(function: Callable, *args: Any) -> Any:
    """Call a function of the engine; its errors become :class:`UserError`."""
    try:
        return function(*args)
    except load_engine().Error as error:
        raise UserError(str(error)) from error
    except MemoryError as error:
        raise UserError('there is not enough memory for the image and its result: cut the image '
                        'into windows') from error


def read_file(path: str | os.PathLike) -> bytes:
    """Read a packed model into memory; a UserError says that the file is missing or unsuitable."""
    advice = 'give the path of a file that bhvit-seg export wrote'
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise UserError(f'the packed model is {path!r}: {advice}')
    name = os.fsdecode(path)
    try:
        # A named pipe without a writer would block.
        with open(name, 'rb', opener=lambda file, flags: os.open(
                file, flags | getattr(os, 'O_NONBLOCK', 0))) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f'the packed model {name} is not a regular file: {advice}')
            if status.st_size > MAX_BYTES:
                raise UserError(f'{name} has {status.st_size:,} bytes, too many for a packed '
                                f'model: {advice}')
            return file.read()
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'the packed model {name!r} cannot be read ({reason}): {advice}') from error


def check_isa(isa: str | None) -> str:
    """Return the engine's argument for an instruction set; None is the best one."""
    if isa is None:
        return ''
    if not isinstance(isa, str) or not isa or '\0' in isa:
        raise UserError(f'isa={isa!r}: expected one of {", ".join(instruction_sets())}')
    return isa


def instruction_sets() -> list[str]:
    """Return the instruction sets that this processor can run, best first."""
    return list(load_engine().instruction_sets())


def processor_limits(isa: str | None = None) -> tuple[float, float]:
    """Measure peak binary and float products (multiply and accumulate) per second of one core."""
    return run(load_engine().limits, check_isa(isa))


def usable_cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
