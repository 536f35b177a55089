"""Who can take part in the latency benchmark, and what each needs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bhvit_seg.errors import UserError

from .exports import Exports

EXTRA = 'benchmark'
PACKED = 'packed'


@dataclass(frozen=True)
class Contestant:
    """One way to run a segmenter.

    Attributes:
        name: On the command line and in the table.
        description: What it is.
        builder: ``module:function`` in this package; the function takes the exports and the number
            of threads, and returns what turns an image into labels.
        packages: Distributions without which it can not take part.
        group: What its time means for the packed model: ``'torch'``, ``'fp32'``, ``'low'`` (int8
            and bf16), ``'other'`` (another network).
    """

    name: str
    description: str
    builder: str
    packages: tuple[str, ...]
    group: str

    def missing(self) -> str | None:
        """Say why it can not take part, or return None."""
        for package in self.packages:
            try:
                importlib.import_module(package)
            except ImportError:
                return (f'{self.name} is left out: {package} is not installed '
                        f'(pip install "bhvit_seg[{EXTRA}]")')
        if 'bf16' in self.name:
            from .openvino_peers import supports_bf16
            if not supports_bf16():
                return f'{self.name} is left out: this processor has no bfloat16 products'
        return None

    def build(self, exports: Exports, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return what turns an image ``(H, W, C)`` uint8, red first, into labels ``(H, W)``."""
        module, function = self.builder.split(':')
        return getattr(importlib.import_module(f'.{module}', __package__), function)(
            exports, threads)


OPENVINO = ('onnx', 'openvino')
PEERS = {peer.name: peer for peer in (
    Contestant('torch-simulated', 'torch, the network as it was trained', 'torch_peers:simulated',
               (), 'torch'),
    Contestant('torch', 'torch eager, folded', 'torch_peers:eager', (), 'torch'),
    Contestant('torch-compile', 'torch.compile, folded', 'torch_peers:compiled', (), 'torch'),
    Contestant('onnxruntime', 'ONNX Runtime fp32', 'onnxruntime_peer:fp32',
               ('onnx', 'onnxruntime'), 'fp32'),
    Contestant('openvino', 'OpenVINO fp32', 'openvino_peers:fp32', OPENVINO, 'fp32'),
    Contestant('openvino-bf16', 'OpenVINO bf16', 'openvino_peers:bf16', OPENVINO, 'low'),
    Contestant('openvino-int8', 'OpenVINO int8 (NNCF)', 'openvino_peers:int8',
               (*OPENVINO, 'nncf'), 'low'),
    Contestant('openvino-int8-bf16', 'OpenVINO int8 (NNCF), else bf16', 'openvino_peers:int8_bf16',
               (*OPENVINO, 'nncf'), 'low'),
    Contestant('segformer-b0', 'SegFormer-B0, OpenVINO fp32', 'openvino_peers:segformer_fp32',
               OPENVINO, 'other'),
    Contestant('segformer-b0-int8', 'SegFormer-B0, OpenVINO int8 (NNCF)',
               'openvino_peers:segformer_int8', (*OPENVINO, 'nncf'), 'other'),
)}


def choose(names: list[str] | None) -> list[Contestant]:
    """Return the peers of these names, or all.

    Raises:
        UserError: A name is unknown.
    """
    for name in names or ():
        if name not in PEERS:
            raise UserError(f'--peers names {name!r}; known are {", ".join(PEERS)}')
    return [peer for name, peer in PEERS.items() if names is None or name in names]


@dataclass(frozen=True)
class Packed(Contestant):
    """The packed engine on one instruction set.

    Attributes:
        isa: The instruction set.
    """

    isa: str = ''

    @classmethod
    def on(cls, isa: str) -> Packed:
        """Return the contestant of an instruction set."""
        return cls(f'{PACKED}-{isa}', f'packed, {isa}', '', (), PACKED, isa)

    def build(self, exports: Exports, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        from bhvit_seg.native import PackedSegmentor

        return PackedSegmentor(exports.packed, threads=threads, isa=self.isa).predict
