"""What the packed engine is compared with, and what each baseline needs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.extras import install_line

from .exports import FOLDED, Exports

EXTRA = 'benchmark'
PACKED = 'packed'


@dataclass(frozen=True)
class Baseline:
    """One way to run a segmentor.

    Attributes:
        name: On the command line and in the table.
        description: What it is.
        builder: ``module:function`` in this package; the function takes the exports and the number
            of threads and the network, and returns a function from an image to labels.
        packages: Packages that it needs.
        network: The folded network, or another one of ``configs/_base_/models``.
        group: ``'torch'``, ``'fp32'``, ``'int8'`` or ``'other'`` (another network).
    """

    name: str
    description: str
    builder: str
    packages: tuple[str, ...]
    group: str
    network: str = FOLDED

    def missing(self) -> str | None:
        """Say which package is missing, or return None."""
        for package in self.packages:
            try:
                importlib.import_module(package)
            except ImportError:
                return (f'{self.name} is left out: {package} is not installed: '
                        f'{install_line(EXTRA)}')
        return None

    def build(self, exports: Exports, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from an image ``(H, W, C)`` uint8, RGB, to labels ``(H, W)``."""
        module, function = self.builder.split(':')
        return getattr(importlib.import_module(f'.{module}', __package__), function)(
            exports, threads, self.network)


OPENVINO = ('onnx', 'openvino')
BASELINES = {baseline.name: baseline for baseline in (
    Baseline('torch-simulated', 'torch, the network as it was trained',
             'torch_baselines:simulated', (), 'torch'),
    Baseline('torch', 'torch eager, folded', 'torch_baselines:eager', (), 'torch'),
    Baseline('openvino', 'OpenVINO fp32', 'openvino_baselines:fp32', OPENVINO, 'fp32'),
    Baseline('openvino-int8', 'OpenVINO int8 (NNCF)', 'openvino_baselines:int8',
             (*OPENVINO, 'nncf'), 'int8'),
    *(each for name, description, network in (
        ('segformer-b0', 'SegFormer-B0', 'segformer_b0'),
        ('efficientnet-lite0', 'EfficientNet-Lite0, FPN', 'efficientnet_lite0_fpn'))
      for each in (
        Baseline(name, f'{description}, OpenVINO fp32', 'openvino_baselines:fp32', OPENVINO,
                 'other', network),
        Baseline(f'{name}-int8', f'{description}, OpenVINO int8 (NNCF)',
                 'openvino_baselines:int8', (*OPENVINO, 'nncf'), 'other', network))),
)}


def choose(names: list[str] | None) -> list[Baseline]:
    """Return the baselines of these names, or all.

    Raises:
        UserError: A name is unknown.
    """
    for name in names or ():
        if name not in BASELINES:
            raise UserError(f'--baselines names {name!r}: expected some of {", ".join(BASELINES)}')
    return [baseline for name, baseline in BASELINES.items() if names is None or name in names]


@dataclass(frozen=True)
class Packed(Baseline):
    """The packed engine on one instruction set.

    Attributes:
        isa: The instruction set.
    """

    isa: str = ''

    @classmethod
    def on(cls, isa: str) -> Packed:
        """Return the entry of an instruction set."""
        return cls(f'{PACKED}-{isa}', f'packed, {isa}', '', (), PACKED, isa=isa)

    def build(self, exports: Exports, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        from bhvit_seg.native import PackedSegmentor

        return PackedSegmentor(exports.packed, threads=threads, isa=self.isa).predict
