"""How far a map is: a bar on a terminal, now and then a line where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType

SECONDS_BETWEEN_LINES = 60


class WindowProgress:
    """Counts windows, with windows a second and the time left; a context manager.

    Args:
        title: What is mapped.
        total: How many windows there are.
    """

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._bar = _make_bar() if sys.stderr.isatty() else None

    def __enter__(self) -> WindowProgress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, speed='')
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, count: int) -> None:
        """Note that ``count`` more windows are done."""
        self._done += count
        now = time.monotonic()
        speed = self._done / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, speed=f'{speed:.1f} windows/s')
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total - self._done) / speed
            print(f'{self._title}: {self._done} of {self._total} windows, {speed:.1f} windows/s, '
                  f'{left / 60:.0f} min left', file=sys.stderr, flush=True)


def _make_bar():
    """Return a bar, or None where rich is not installed to draw it."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ModuleNotFoundError:
        return None
    return Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                    TextColumn('{task.fields[speed]}'), TimeRemainingColumn(),
                    console=Console(stderr=True))
