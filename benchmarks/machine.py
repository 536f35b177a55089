"""The machine and the versions that a result was measured with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from bhvit_seg import __version__
from bhvit_seg.native.speed import processor_name

DISTRIBUTIONS = ('numpy', 'torch', 'openvino', 'nncf')


def machine() -> dict[str, Any]:
    """Return ``processor``, ``cores``, ``gpu`` (or None), ``system`` and ``versions``."""
    versions = {'bhvit_seg': __version__, 'python': platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {'processor': processor_name(), 'cores': os.cpu_count(), 'gpu': gpu,
            'system': platform.platform(), 'versions': versions}
