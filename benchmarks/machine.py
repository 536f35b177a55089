"""The machine and the versions that a result was measured with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bhvit_seg import __version__

DISTRIBUTIONS = ('numpy', 'torch', 'openvino', 'nncf')


def processor() -> str:
    """Return the name of the processor."""
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Return ``processor``, ``cores``, ``gpu`` (or None), ``system`` and ``versions``."""
    versions = {'bhvit_seg': __version__, 'python': platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {'processor': processor(), 'cores': os.cpu_count(), 'gpu': gpu,
            'system': platform.platform(), 'versions': versions}
