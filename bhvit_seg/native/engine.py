"""Loading the compiled engine in ``csrc``, and properties of the processor."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, Callable

from bhvit_seg.errors import UserError
from bhvit_seg.extras import engine_failure, reinstall_line

INTERFACE = 2  # of bindings.cc; rises with what is called there


def load_engine() -> ModuleType:
    """Return the extension module, or raise a UserError if it is not built, or of other sources."""
    try:
        from . import _engine
    except ImportError as error:
        reason = engine_failure() or str(error)
        raise UserError(
            f'the engine of packed models is not built for this Python ({reason}): install a C++ '
            f'compiler (Debian, Ubuntu: apt-get install g++) and run {reinstall_line()}'
        ) from error
    if getattr(_engine, 'interface', 1) != INTERFACE:
        raise UserError('the engine of packed models was built from another version of bhvit_seg: '
                        f'run {reinstall_line()}')
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


def open_file(path: str | os.PathLike) -> Any:
    """Return a packed model's file (``_engine.File``), read and parsed; a UserError if it is
    missing or damaged."""
    try:
        name = os.fsencode(path)
        if b'\0' in name:
            raise ValueError('a zero byte')
    except (TypeError, ValueError) as error:
        raise UserError(f'the packed model {path!r} cannot be read ({error}): give the path of a '
                        'file that bhvit-seg export wrote') from error
    return run(load_engine().File, name)


def check_isa(isa: str | None) -> str:
    """Return the engine's argument for an instruction set, which it checks; None: the best."""
    if isa is not None and not isinstance(isa, str):
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
