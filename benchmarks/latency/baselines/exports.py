"""One trained network in the file formats that baselines take, each written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from bhvit_seg.native.onnx_export import quiet, write_onnx
from bhvit_seg.native.onnx_network import Pixels

from .network import WholeNetwork

FOLDED = 'folded'


class Exports:
    """What baselines of one image size are built from.

    Args:
        model: The trained segmentor, in evaluation mode.
        size: Height and width of images.
        folder: Where files go.
        images: Calibration images for int8, ``(H, W, C)`` uint8, RGB.
        packed: The packed model's file.
        others: Other networks, by name.
    """

    def __init__(self, model: EncoderDecoder, size: tuple[int, int], folder: Path,
                 images: Sequence[np.ndarray], packed: Path | None = None,
                 others: Mapping[str, WholeNetwork] | None = None) -> None:
        self.model, self.size, self.folder = model, tuple(size), folder
        self.images, self.packed = list(images), packed
        self._others: dict[str, WholeNetwork] = dict(others or {})

    def folded(self) -> WholeNetwork:
        """The trained network, folded."""
        return WholeNetwork.folded(self.model, self.size)

    def other(self, name: str) -> WholeNetwork:
        """The network of a name in :mod:`.network` with as many classes and channels."""
        if name not in self._others:
            with quiet():
                self._others[name] = WholeNetwork.random(
                    name, self.model.decode_head.out_channels, Pixels(self.model),
                    self.images[0])
        return self._others[name]

    def onnx(self, name: str) -> Path:
        """Write the network :data:`FOLDED`, or another one, as ONNX once; return the path."""
        path = self.folder / f'{name}_{self.size[0]}x{self.size[1]}.onnx'
        if not path.exists():
            module: nn.Module = self.folded() if name == FOLDED else self.other(name)
            write_onnx(module, torch.from_numpy(self.images[0]), path, output='labels')
        return path

    @torch.no_grad()
    def simulated(self, image: np.ndarray) -> np.ndarray:
        """Labels of the network as it was trained, computed in torch."""
        inputs = Pixels(self.model)(torch.from_numpy(image).permute(2, 0, 1)).unsqueeze(0)
        logits: Tensor = self.model(inputs, mode='tensor')
        logits = nn.functional.interpolate(logits, self.size, mode='bilinear',
                                           align_corners=self.model.decode_head.align_corners)
        return logits.argmax(1)[0].to(torch.uint8).numpy()
