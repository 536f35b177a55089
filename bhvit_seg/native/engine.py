"""Loading the compiled engine in ``csrc``, and properties of the processor."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from bhvit_seg.errors import UserError
from bhvit_seg.extras import engine_failure, reinstall_line


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
    reason: object = 'not a regular file'
    try:
        if Path(path).is_file():  # a named pipe would block
            return Path(path).read_bytes()
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, 'strerror', None) or error
    raise UserError(f'the packed model {path!r} cannot be read ({reason}): give the path of a file '
                    'that bhvit-seg export wrote')


def check_isa(isa: str | None) -> str:
    """Return the engine's argument for an instruction set; None is the best one."""
    if isa is not None and isa not in instruction_sets():
        raise UserError(f'isa={isa!r}: expected one of {", ".join(instruction_sets())}')
    return isa or ''


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
