"""Whole segmentors for images of one size: the trained one, folded, and others.

These are small full-precision networks that a user would pick instead. Random weights affect
neither latency nor agreement of exports.
"""

from __future__ import annotations

import math
from pathlib import Path

import bhvit_seg.models  # noqa: F401  isort: skip
import numpy as np
import torch
from mmengine.config import Config
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.native.onnx_network import Pixels, fold_for_runtimes

from .labels import Labels, center_classes

# The last stage's map then has a side of 2 or more, from which the stencil wraps around.
SMALLEST = 36
PARTS = Path(__file__).resolve().parents[3] / 'configs' / '_base_' / 'models'


class WholeNetwork(nn.Module):
    """From images to labels.

    Args:
        backbone: Its backbone.
        head: Its decode head.
        pixels: The preprocessing.
        size: Height and width of images.
        image: An image in which all classes are to occur, for random weights.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, pixels: Pixels,
                 size: tuple[int, int], image: np.ndarray | None = None) -> None:
        super().__init__()
        self.backbone, self.head, self.pixels = backbone, head, pixels
        self.eval().requires_grad_(False)
        logits = self.logits(torch.zeros(*size, len(pixels.order), dtype=torch.uint8)
                             if image is None else torch.from_numpy(image))
        if image is not None:
            center_classes(self.head.conv_seg, logits)
        self.labels = Labels(self.head.conv_seg, tuple(logits.shape[2:]), size,
                             self.head.align_corners).float().eval().requires_grad_(False)

    @classmethod
    def folded(cls, model: EncoderDecoder, size: tuple[int, int]) -> WholeNetwork:
        """Take a trained segmentor; a UserError if the size is no multiple of 4, or of what images
        are mirrored up to, from 36 on."""
        unit = math.lcm(4, getattr(model.data_preprocessor, 'divisor', 1))
        if any(length % unit or length < SMALLEST for length in size):
            raise UserError(f'the size {size[0]}×{size[1]} is not a multiple of {unit}, at least '
                            f'{SMALLEST}, in height and width: baselines are exported for such '
                            'sizes only')
        folded = fold_for_runtimes(model)
        return cls(folded.backbone, folded.decode_head, Pixels(model), size)

    @classmethod
    def random(cls, name: str, classes: int, pixels: Pixels, image: np.ndarray) -> WholeNetwork:
        """Build the network of a file in ``configs/_base_/models`` with random weights."""
        network, = Config.fromfile(str(PARTS / f'{name}.py')).values()
        backbone = {**network.backbone, 'init_cfg': None}
        if len(pixels.order) != 3:
            backbone['in_channels'] = len(pixels.order)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone = MODELS.build(backbone)
            head = MODELS.build({
                **network.decode_head, 'num_classes': classes, 'out_channels': classes,
                'loss_decode': dict(type='CrossEntropyLoss')})
            backbone.init_weights()
        return cls(backbone, head, pixels, image.shape[:2], image)

    def logits(self, image: Tensor) -> Tensor:
        """Map an image ``(H, W, C)``, RGB, to logits ``(1, classes, H/4, W/4)``."""
        return self.head(self.backbone(self.pixels(image.permute(2, 0, 1)).unsqueeze(0)))

    def forward(self, image: Tensor) -> Tensor:
        """Map an image ``(H, W, C)``, RGB, to labels ``(H, W)``, uint8."""
        return self.labels.upsample(self.logits(image)[0])
