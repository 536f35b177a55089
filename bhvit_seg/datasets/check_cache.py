"""Findings of earlier checks on files that have not changed since.

A check reads every file of a data set; resuming a training must not wait for that again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from bhvit_seg.fileio import write_text

VERSION = 4


class CheckCache:
    """Findings by sample, valid while the sizes and times of its files and the settings last.

    Args:
        path: JSON file; ``None`` remembers nothing. One that cannot be read counts as empty.
        settings: Everything a finding depends on besides the files, as text.
    """

    def __init__(self, path: str | os.PathLike | None, settings: str) -> None:
        self.path = None if path is None else Path(path)
        self.settings = settings
        self.known = self._read()
        self.current: dict[str, list] = {}

    def get(self, paths: list[str]) -> dict | None:
        """Return the finding on a sample, the files ``paths``, or ``None`` if it is not known."""
        entry = self.known.get(paths[0])
        if entry is None or entry[0] != _stamp(paths):
            return None
        self.current[paths[0]] = entry
        return entry[1]

    def put(self, paths: list[str], finding: dict) -> None:
        """Remember a finding (of plain lists, dicts, strings and numbers)."""
        self.current[paths[0]] = [_stamp(paths), finding]

    def save(self) -> None:
        """Write what was asked for or remembered since the start."""
        if self.path is None:
            return
        content = dict(version=VERSION, settings=self.settings, files=self.current)
        write_text(self.path, json.dumps(content, separators=(',', ':')))

    def _read(self) -> dict[str, list]:
        if self.path is None:
            return {}
        try:
            content = json.loads(self.path.read_text(encoding='utf-8'))
            if (content['version'], content['settings']) == (VERSION, self.settings):
                return dict(content['files'])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {}


def _stamp(paths: list[str]) -> list:
    """Path, size in bytes and time of change of each file; a missing one has neither."""
    stamp = []
    for path in paths:
        try:
            status = os.stat(path)
            stamp.append([path, status.st_size, status.st_mtime_ns])
        except OSError:
            stamp.append([path, None, None])
    return stamp
