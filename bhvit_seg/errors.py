"""How commands end: bad input, a missing package, Ctrl-C and a closed pipe give one line each."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import importlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Callable

BAD_INPUT = 2
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
CLOSED_PIPE = 128 + 13  # as the shell reports a process that SIGPIPE ended
WORKER_TERMINATED = 'is killed by signal: Terminated'  # of torch's data loader
NOTHING_TO_KEEP = 'nothing unfinished is left behind; the same command starts again'


class UserError(ValueError):
    """An error of the user's input, printed without a traceback: one sentence that says what is
    wrong, where, what was expected and how to correct it. Whatever takes an argument raises it for
    values out of their range; docstrings name it where that is not obvious."""


def find_user_error(error: BaseException | None) -> UserError | None:
    """Return the innermost :class:`UserError` among the causes of an error (registries wrap it)."""
    found = [cause for cause in causes(error) if isinstance(cause, UserError)]
    return found[-1] if found else None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type when it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shortened(names: list[str], shown: int = 10) -> str:
    """Return the first names of a list, and how many follow."""
    more = len(names) - shown
    return ', '.join(names[:shown]) + (f' and {more} more' if more > 0 else '')


def similar_to(name: str, names: Iterable[str]) -> str:
    """Return the question after a name that is none of ``names``: whether the nearest is meant."""
    nearest = difflib.get_close_matches(name, names, 1)
    return f' (did you mean {nearest[0]}?)' if nearest else ''


def first_problem(problems: list[str]) -> str:
    """Return the first problem, and the number of others."""
    others = len(problems) - 1
    return problems[0] + (f' ({others} more problem(s))' if others else '')


def free_space(path: str | os.PathLike) -> str:
    """Return how much is free where a file was to be written, in words."""
    folder = Path(path).absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        return f'{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free there now'
    except OSError:
        return 'how much is free there is not known'


def sentence_of(error: BaseException) -> str:
    """Return what the user is told about ``error``, or '' if it is a bug."""
    user_error = find_user_error(error)
    if user_error is not None:
        # torch repeats an error of a worker process with the worker's traceback before it
        return str(user_error).rpartition('UserError: ')[2].strip()
    from bhvit_seg.extras import EXTRA_OF, missing_package

    for cause in causes(error):
        name = cause.name or '' if isinstance(cause, ModuleNotFoundError) else ''
        if name.split('.')[0] in EXTRA_OF:
            return missing_package(name)
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in DISK_ERRORS
        if error.filename is not None:  # no such file, no permission
            name = os.fsdecode(error.filename)
            return f'{name}: {error.strerror}' + (f' ({free_space(name)})' if full else '')
        if full:
            return error.strerror
    return ''


def load_package(name: str) -> ModuleType:
    """Import an optional package, such as ``'skimage.measure'``; a UserError names its extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        from bhvit_seg.extras import missing_package

        raise UserError(missing_package(name)) from error


# Arguments of explain_interrupt; the outermost one is used, as it knows the command.
_explanations: list[Callable[[], str]] = []


@contextlib.contextmanager
def explain_interrupt(explain: Callable[[], str]) -> Iterator[None]:
    """Add ``explain()``, called in the signal handler, to the message of an interrupt."""
    _explanations.append(explain)
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if _worker_was_terminated(error):
            signal.raise_signal(signal.SIGTERM)  # on its way to this process too
        raise
    finally:
        _explanations.remove(explain)


def _worker_was_terminated(error: BaseException) -> bool:
    """Whether a data loader's worker got SIGTERM; its broken connection may be noticed first."""
    try:
        time.sleep(0.5)  # torch's handler of SIGCHLD interrupts it
    except RuntimeError as cause:
        error = cause  # its context is the error before
    return any(WORKER_TERMINATED in str(cause) for cause in causes(error))


class _Interruption:
    """Turns SIGINT and SIGTERM into a KeyboardInterrupt and remembers what to say about it.

    Imports may turn it into an ImportError, a DataLoader into a RuntimeError; ``signum`` stays set.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.text = ''
        self.process = os.getpid()
        self.before: dict[int, object] = {}

    def __enter__(self) -> _Interruption:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                # Ignored signals, as with nohup, stay ignored.
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self.before[signum] = signal.signal(signum, self.handle)
        return self

    def __exit__(self, *error) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def handle(self, signum: int, frame) -> None:
        if os.getpid() != self.process:
            # A forked worker ends silently: torch reports any other status than 0.
            os._exit(0 if signum == signal.SIGINT else 128 + signum)
        self.signum = self.signum or signum
        if hasattr(signal, 'SIGCHLD'):
            # torch raises an error, even at exit, for workers that got the same signal.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not self.text:
            self.text = _explanations[0]() if _explanations else NOTHING_TO_KEEP
        while frame is not None and not _explanations:
            if frame.f_code.co_filename == '<frozen importlib._bootstrap>':
                # Half imported packages swallow a KeyboardInterrupt or crash on it.
                self.report()
                os._exit(128 + self.signum)
            frame = frame.f_back
        raise KeyboardInterrupt

    def report(self) -> None:
        name = 'interrupted' if self.signum == signal.SIGINT else 'terminated'
        say(f'{name}: {self.text}')


def say(line: str) -> None:
    """Print a line to standard error, if somebody reads it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # after the ^C of the terminal
        print(('\n' if sys.stderr.isatty() else '') + line, file=sys.stderr, flush=True)


def discard_output() -> None:
    """Redirect the standard streams, with what they still hold, to the null device."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError), open(os.devnull, 'wb') as no:
            os.dup2(no.fileno(), stream.fileno())


def end(error: BaseException, interruption: _Interruption) -> None:
    """End the process as :func:`command` says; return if the error is a bug."""
    if interruption.signum or isinstance(error, KeyboardInterrupt):
        signum = interruption.signum = interruption.signum or signal.SIGINT
        interruption.text = interruption.text or NOTHING_TO_KEEP
        interruption.report()
        # A second Ctrl-C while threads are joined ends the process at once.
        interruption.before[signum] = signal.SIG_DFL
        sys.exit(128 + signum)
    # rich ends the process itself
    if any(isinstance(cause, BrokenPipeError) for cause in causes(error)):
        discard_output()
        sys.exit(CLOSED_PIPE)
    sentence = sentence_of(error)
    if sentence:
        say(f'error: {sentence}')
        try:
            sys.stdout.flush()
        except (AttributeError, OSError):
            discard_output()
        sys.exit(BAD_INPUT)


def command(main: Callable) -> Callable:
    """Decorate an entry point, so that what is not a bug ends it with one line.

    ========================================  ======  ==============================
    what happens                              status  standard error
    ========================================  ======  ==============================
    a :class:`UserError`, a missing package,  2       ``error: ...``
    an OSError about a file
    Ctrl-C, SIGTERM                           130,    ``interrupted: ...``, see
                                              143     :func:`explain_interrupt`
    the reader of the output is gone          141     nothing
    ========================================  ======  ==============================
    """

    @functools.wraps(main)
    def run(*args, **kwargs):
        import logging

        def handle_error(handler, record) -> None:
            """Raise a BrokenPipeError, which a handler prints with a traceback."""
            if isinstance(sys.exc_info()[1], BrokenPipeError):
                raise
            logging.Handler.handleError(handler, record)

        logging.StreamHandler.handleError = handle_error
        with _Interruption() as interruption:
            try:
                result = main(*args, **kwargs)
                if sys.stdout is not None:
                    sys.stdout.flush()
                return result
            except BaseException as error:
                end(error, interruption)
                raise

    return run
