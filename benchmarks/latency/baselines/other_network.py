"""Small full-precision networks that a user would pick instead, for images of one size.

Random weights affect neither latency nor agreement of exports.
"""

from __future__ import annotations

from pathlib import Path

import bhvit_seg.models  # noqa: F401  isort: skip
import numpy as np
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import Tensor, nn

from .folded import Pixels
from .labels import Labels, center_classes

PARTS = Path(__file__).resolve().parents[3] / 'configs' / '_base_' / 'models'


class OtherNetwork(nn.Module):
    """A whole segmentor for images of one size.

    Args:
        backbone: Its backbone.
        head: Its decode head.
        pixels: The preprocessing; its length is the number of channels.
        size: Height and width of images.
        image: An image in which all classes are to occur, for random weights.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, pixels: Pixels,
                 size: tuple[int, int], image: np.ndarray | None = None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.order = pixels.order
        self.register_buffer('mean', pixels.mean.float())
        self.register_buffer('scale', (1 / pixels.std).float())
        self.eval().requires_grad_(False)
        logits = self.logits(torch.zeros(*size, len(pixels.order), dtype=torch.uint8)
                             if image is None else torch.from_numpy(image))
        if image is not None:
            center_classes(self.head.conv_seg, logits)
        self.labels = Labels(self.head.conv_seg, tuple(logits.shape[2:]), size,
                             self.head.align_corners).float().eval().requires_grad_(False)

    @classmethod
    def random(cls, name: str, classes: int, pixels: Pixels, image: np.ndarray) -> OtherNetwork:
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
        channels = image.permute(2, 0, 1)[self.order].to(self.mean.dtype)
        return self.head(self.backbone(((channels - self.mean) * self.scale).unsqueeze(0)))

    def forward(self, image: Tensor) -> Tensor:
        """Map an image ``(H, W, C)``, RGB, to labels ``(H, W)``, uint8."""
        return self.labels.upsample(self.logits(image)[0])
