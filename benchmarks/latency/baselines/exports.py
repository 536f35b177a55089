"""One trained network in the file formats that baselines take, each written once."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from .folded import Pixels
from .folded_heads import FoldedSegmentor
from .other_network import OtherNetwork

OPSET = 18
FOLDED = 'folded'


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence exporters, which warn about things that are intended here."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


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
                 others: Mapping[str, OtherNetwork] | None = None) -> None:
        self.model, self.size, self.folder = model, tuple(size), folder
        self.images, self.packed = list(images), packed
        self._others: dict[str, OtherNetwork] = dict(others or {})

    def folded(self) -> FoldedSegmentor:
        """The folded network in float32."""
        return FoldedSegmentor(self.model, self.size).float()

    def other(self, name: str) -> OtherNetwork:
        """The network of a name in :mod:`.other_network` with as many classes and channels."""
        if name not in self._others:
            with quiet():
                self._others[name] = OtherNetwork.random(
                    name, self.model.decode_head.out_channels, Pixels.of(self.model),
                    self.images[0])
        return self._others[name]

    def onnx(self, name: str) -> Path:
        """Write the network :data:`FOLDED`, or another one, as ONNX once; return the path."""
        path = self.folder / f'{name}_{self.size[0]}x{self.size[1]}.onnx'
        if not path.exists():
            module: nn.Module = self.folded() if name == FOLDED else self.other(name)
            image = torch.from_numpy(self.images[0])
            with quiet(), torch.no_grad():
                torch.onnx.export(module, (image,), str(path), dynamo=False, opset_version=OPSET,
                                  input_names=['image'], output_names=['labels'])
        return path

    @torch.no_grad()
    def simulated(self, image: np.ndarray) -> np.ndarray:
        """Labels of the network as it was trained, computed in torch."""
        pixels = Pixels.of(self.model)
        channels = torch.from_numpy(image).permute(2, 0, 1)[pixels.order]
        inputs = ((channels - pixels.mean) / pixels.std).float().unsqueeze(0)
        logits: Tensor = self.model(inputs, mode='tensor')
        logits = nn.functional.interpolate(logits, self.size, mode='bilinear',
                                           align_corners=self.model.decode_head.align_corners)
        return logits.argmax(1)[0].to(torch.uint8).numpy()
