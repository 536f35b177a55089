"""Stem, downsampling and position embeddings of BHViT (arXiv 2503.02394).

Where 4 or 2 does not divide a map, zeros are padded at the bottom and right, after the sign where
there is one, so that padding adds nothing to a convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fused import add_tiled_, prelu
from .layers import (
    BinaryConv2d,
    RPReLU,
    binarize_map,
    build_adaptive,
    build_token_norm,
    normalize,
)
from .tokens import MapShape, to_rows


class PositionEmbedding(nn.Module):
    """A learned map of ``size``×``size`` tokens, resized bicubically for other sizes."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, size, size))

    def forward(self, rows: Tensor, shape: MapShape) -> Tensor:
        """Add the embedding to rows ``(B · H · W, C)``."""
        embedding = self.weight
        if embedding.shape[2:] != shape[1:]:
            embedding = F.interpolate(embedding, shape[1:], mode='bicubic', align_corners=False)
        return (rows.view(shape.batch, -1, rows.shape[1]) + to_rows(embedding)).view_as(rows)


def _pad_to_multiple(maps: Tensor, multiple: int) -> Tensor:
    height, width = maps.shape[2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(maps, (0, right, 0, bottom)) if bottom or right else maps


class PatchEmbedding(nn.Module):
    """The stem: convolution whose stride is its size, norm, GELU, position embedding."""

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict, map_size: int,
                 patch_size: int = 4) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(in_channels, channels, patch_size, patch_size)
        self.norm = build_token_norm(norm_cfg, channels)
        self.position = PositionEmbedding(channels, map_size)

    def forward(self, image: Tensor) -> tuple[Tensor, MapShape]:
        image = _pad_to_multiple(image, self.patch_size)
        maps = self.projection(image.contiguous(memory_format=torch.channels_last))
        shape = MapShape.of(maps)
        # the residual stream stays in the dtype of the parameters under mixed precision
        rows = to_rows(maps).to(self.projection.weight.dtype)
        return self.position(F.gelu(normalize(self.norm, rows)), shape), shape


class Downsampling(nn.Module):
    """2×2 convolution with stride 2 between stages, then a position embedding.

    ``kind`` is ``'full_precision'``, ``norm → conv → norm``, or ``'binary'``: with ``n = norm(x)``,
    ``RPReLU(norm(BinaryConv(n)) + tile(avgpool2(n)))``, whose full-precision twin has
    ``binary=False``. The last row and column of an odd map are averaged and convolved from real
    tokens only.
    """

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict, map_size: int,
                 kind: str, binary: bool = True, adaptive: str | None = None) -> None:
        super().__init__()
        self.binary = binary
        self.norm_in = build_token_norm(norm_cfg, in_channels)
        self.input_bias = self.adaptive = self.act = None
        if kind == 'binary':
            self.input_bias = nn.Parameter(torch.zeros(in_channels))
            self.adaptive = build_adaptive(adaptive, in_channels, binary)
            self.conv = BinaryConv2d(in_channels, channels, 2, 2, bias=False, input_bias=False,
                                     binary=binary)
            self.act = RPReLU(channels)
        else:
            self.conv = nn.Conv2d(in_channels, channels, 2, 2, bias=False)
        self.norm_out = build_token_norm(norm_cfg, channels)
        self.position = PositionEmbedding(channels, map_size)

    def forward(self, rows: Tensor, shape: MapShape) -> tuple[Tensor, MapShape]:
        normed = inputs = shape.to_map(normalize(self.norm_in, rows))
        if self.input_bias is not None:
            inputs = binarize_map(normed, self.input_bias, self.binary, self.adaptive)
        maps = self.conv(_pad_to_multiple(inputs, 2))
        out = to_rows(maps).to(rows.dtype)
        if self.act is None:
            out = normalize(self.norm_out, out)
        else:
            pooled = F.avg_pool2d(normed, 2, ceil_mode=True, count_include_pad=False)
            out = normalize(self.norm_out, out, -self.act.shift_in)
            out = prelu(add_tiled_(out, to_rows(pooled)), self.act.slope) + self.act.shift_out
        shape = MapShape.of(maps)
        return self.position(out, shape), shape
