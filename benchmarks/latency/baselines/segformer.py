"""SegFormer-B0, a small full-precision network that a user would pick instead.

Its weights are random, which affects neither its latency nor that of its exports.
"""

from __future__ import annotations

import numpy as np
import torch
from mmseg.models.backbones import MixVisionTransformer
from mmseg.models.decode_heads import SegformerHead
from torch import Tensor, nn

from .folded import Pixels
from .labels import Labels, center_classes

CHANNELS = (32, 64, 160, 256)


class SegFormerB0(nn.Module):
    """A whole segmentor for images of one size.

    Args:
        in_channels: Channels of the image.
        classes: Number of classes.
        pixels: The preprocessing.
        size: Height and width of images.
        image: An image in which all classes are to occur.
    """

    def __init__(self, in_channels: int, classes: int, pixels: Pixels, size: tuple[int, int],
                 image: np.ndarray) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.backbone = MixVisionTransformer(
                in_channels=in_channels, embed_dims=CHANNELS[0], num_stages=4,
                num_layers=[2, 2, 2, 2], num_heads=[1, 2, 5, 8], patch_sizes=[7, 3, 3, 3],
                sr_ratios=[8, 4, 2, 1], mlp_ratio=4, qkv_bias=True)
            self.head = SegformerHead(
                in_channels=CHANNELS, in_index=[0, 1, 2, 3], channels=256, num_classes=classes,
                out_channels=classes, norm_cfg=dict(type='BN'), align_corners=False,
                loss_decode=dict(type='CrossEntropyLoss'))
            self.backbone.init_weights()
        self.order = pixels.order
        self.register_buffer('mean', pixels.mean.float())
        self.register_buffer('scale', (1 / pixels.std).float())
        grid = tuple(-(-length // 4) for length in size)
        self.labels = Labels(self.head.conv_seg, grid, size, False).float()
        self.eval().requires_grad_(False)
        center_classes(self.head.conv_seg, self.logits(torch.from_numpy(image)))

    def logits(self, image: Tensor) -> Tensor:
        """Map an image ``(H, W, C)`` in RGB order, to logits ``(1, classes, H/4, W/4)``."""
        channels = image.permute(2, 0, 1)[self.order].to(self.mean.dtype)
        return self.head(self.backbone(((channels - self.mean) * self.scale).unsqueeze(0)))

    def forward(self, image: Tensor) -> Tensor:
        """Map an image ``(H, W, C)`` in RGB order, to labels ``(H, W)``, uint8."""
        return self.labels.upsample(self.logits(image)[0])
