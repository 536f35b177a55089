"""A disk that is full soon."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of ``size`` at a new folder; skip the test where only root may."""
    folder.mkdir()
    if os.geteuid():
        pytest.skip('only root can mount a small file system')
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)],
                             capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f'a small file system cannot be mounted: {mounted.stderr.strip()}')
    try:
        yield folder
    finally:
        subprocess.run(['umount', str(folder)], check=True)
