"""How far long work is: a bar on a terminal, now and then a line where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType

SECONDS_BETWEEN_LINES = 60


class WorkProgress:
    """Counts what is done, with the speed and the time left; a context manager.

    Args:
        title: What is made.
        total: How many pieces there are.
        unit: What the pieces are called.
    """

    def __init__(self, title: str, total: int, unit: str = 'windows') -> None:
        self._title = title
        self._total = total
        self._unit = unit
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._bar = _make_bar() if sys.stderr.isatty() else None

    def __enter__(self) -> WorkProgress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, speed='')
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, count: int) -> None:
        """Note that ``count`` more pieces are done."""
        self._done += count
        now = time.monotonic()
        speed = max(self._done, 1e-9) / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done,
                             speed=f'{speed:.1f} {self._unit}/s')
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total - self._done) / speed
            print(f'{self._title}: {self._done} of {self._total} {self._unit}, '
                  f'{speed:.1f} {self._unit}/s, {left / 60:.0f} min left',
                  file=sys.stderr, flush=True)

    def share(self, share: float) -> None:
        """Note that a share of the pieces, 0 to 1, is done."""
        self.add(round(share * self._total) - self._done)


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
