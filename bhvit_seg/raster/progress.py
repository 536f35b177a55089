"""Progress of long work: a bar on a terminal, elsewhere a line every minute."""

from __future__ import annotations

import contextlib
import sys
import time

SECONDS_BETWEEN_LINES = 60


class WorkProgress:
    """Shows progress, speed and remaining time; a context manager."""

    def __init__(self, title: str, total: int, unit: str = 'windows') -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            with contextlib.suppress(ModuleNotFoundError):
                from rich import progress
                from rich.console import Console

                self._bar = progress.Progress(
                    progress.TextColumn('{task.description}'), progress.BarColumn(),
                    progress.MofNCompleteColumn(), progress.TextColumn('{task.fields[speed]}'),
                    progress.TimeRemainingColumn(), console=Console(stderr=True))

    def __enter__(self) -> WorkProgress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, speed='')
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, count: int) -> None:
        """Add ``count`` finished units."""
        self._done += count
        now = time.monotonic()
        speed = max(self._done, 1e-9) / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, speed=f'{speed:.1f} {self._unit}/s')
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total - self._done) / speed
            print(f'{self._title}: {self._done} of {self._total} {self._unit}, '
                  f'{speed:.1f} {self._unit}/s, {left / 60:.0f} min left',
                  file=sys.stderr, flush=True)

    def set_fraction(self, fraction: float) -> None:
        self.add(round(fraction * self._total) - self._done)
