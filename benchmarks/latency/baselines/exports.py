"""One trained network in the forms and file formats that peers take, made once and kept."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from .folded import Pixels
from .folded_heads import FoldedSegmentor
from .folding import Form
from .segformer import SegFormerB0

OPSET = 18


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters from printing and warning about what they can not know is intended."""
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
    """What contestants of one image size are built from.

    Args:
        model: The trained segmentor, in evaluation mode.
        size: Height and width of images.
        folder: Where files go.
        images: What int8 is calibrated with, ``(H, W, C)`` uint8, red first.
        packed: The packed model's file.
    """

    def __init__(self, model: EncoderDecoder, size: tuple[int, int], folder: Path,
                 images: Sequence[np.ndarray], packed: Path | None = None) -> None:
        self.model, self.size, self.folder = model, tuple(size), folder
        self.images, self.packed = list(images), packed
        self._segformer: SegFormerB0 | None = None

    def folded(self, form: Form) -> FoldedSegmentor:
        """The folded network in float32."""
        return FoldedSegmentor(self.model, self.size, form).float()

    def segformer(self) -> SegFormerB0:
        """SegFormer-B0 with as many classes and channels."""
        if self._segformer is None:
            with quiet():
                self._segformer = SegFormerB0(
                    self.model.backbone.in_channels, self.model.decode_head.out_channels,
                    Pixels.of(self.model), self.size, self.images[0])
        return self._segformer

    def onnx(self, name: str, form: Form | None = None) -> Path:
        """Write an ONNX file, unless it is there, and return its path.

        Args:
            name: What the file is called; ``'segformer'`` is SegFormer-B0.
            form: How the folded network is written.
        """
        path = self.folder / f'{name}_{self.size[0]}x{self.size[1]}.onnx'
        if not path.exists():
            module: nn.Module = self.segformer() if form is None else self.folded(form)
            image = torch.from_numpy(self.images[0])
            with quiet(), torch.no_grad():
                torch.onnx.export(module, (image,), str(path), dynamo=False, opset_version=OPSET,
                                  input_names=['image'], output_names=['labels'])
        return path

    @torch.no_grad()
    def simulated(self, image: np.ndarray) -> np.ndarray:
        """Labels that the trained network gives in torch, as it was trained."""
        pixels = Pixels.of(self.model)
        channels = torch.from_numpy(image).permute(2, 0, 1)[pixels.order]
        inputs = ((channels - pixels.mean) / pixels.std).float().unsqueeze(0)
        logits: Tensor = self.model(inputs, mode='tensor')
        logits = nn.functional.interpolate(logits, self.size, mode='bilinear',
                                           align_corners=self.model.decode_head.align_corners)
        return logits.argmax(1)[0].to(torch.uint8).numpy()
