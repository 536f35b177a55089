"""Progress of long work: on a terminal a line that is rewritten, elsewhere one every minute."""

from __future__ import annotations

import sys
import time


class WorkProgress:
    """Shows progress, speed and, of a known total, remaining time; a context manager."""

    def __init__(self, title: str, total: int | None, unit: str = 'windows') -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._rewrites = sys.stderr.isatty()
        self._pause = 0.2 if self._rewrites else 60  # seconds between lines

    def __enter__(self) -> WorkProgress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._rewrites and self._last_line > self._start:
            print(file=sys.stderr)

    def add(self, count: int, remark: str = '') -> None:
        """Add ``count`` finished units; ``remark`` is shown after the speed."""
        self._done += count
        now = time.monotonic()
        if now - self._last_line < self._pause:
            return
        self._last_line = now
        speed = max(self._done, 1e-9) / max(now - self._start, 1e-9)
        of = '' if self._total is None else f' of {self._total}'
        line = f'{self._title}: {self._done}{of} {self._unit}, {speed:.1f} {self._unit}/s'
        if remark:
            line += f', {remark}'
        if of:
            line += f', {(self._total - self._done) / speed / 60:.0f} min left'
        print(f'\r{line}\x1b[K' if self._rewrites else line, end='' if self._rewrites else '\n',
              file=sys.stderr, flush=True)

    def set_fraction(self, fraction: float) -> None:
        self.add(round(fraction * self._total) - self._done)
