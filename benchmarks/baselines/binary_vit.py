"""A plain ViT binarized by the recipe of ReActNet (arXiv 2003.03488), as a baseline.

It shows, as the paper's first figure does, that techniques for binary CNNs do not suffice for a
plain transformer. Blocks are those of a ViT at a single scale, with RSign before every product,
attention matrices included, and RPReLU after it instead of GELU. Quantizers, binary layers, stem
and position embedding are those of BHViT.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.common import Backbone
from bhvit_seg.models.embeddings import PatchEmbedding
from bhvit_seg.models.layers import (
    BinaryProjection,
    build_token_norm,
    normalize,
    shift_and_binarize,
)
from bhvit_seg.models.quantizers import BooleanAttentionQuantizer
from bhvit_seg.models.token_mixers import attend
from bhvit_seg.models.tokens import MapShape

STRIDES = (4, 8, 16, 32)
PATCH = 16


class BinaryProduct(BinaryProjection):
    """``RPReLU(norm(BinaryLinear(x)))`` on token rows."""

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict, binary: bool) -> None:
        super().__init__(in_channels, channels, norm_cfg, binary=binary, shortcut=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.act.shift_out


class BinaryViTBlock(nn.Module):
    """Attention over all tokens (a plain softmax in the twin) and an MLP, with shortcuts."""

    def __init__(self, channels: int, num_heads: int, mlp_ratio: int, norm_cfg: dict,
                 binary: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.binary = binary
        self.norm1 = build_token_norm(norm_cfg, channels)
        self.query, self.key, self.value = (
            BinaryProduct(channels, channels, norm_cfg, binary) for _ in range(3))
        self.bit_bias = nn.Parameter(torch.zeros(3, channels))
        self.quantizer = BooleanAttentionQuantizer(num_heads) if binary else None
        self.output = BinaryProduct(channels, channels, norm_cfg, binary)
        self.norm2 = build_token_norm(norm_cfg, channels)
        self.fc1 = BinaryProduct(channels, mlp_ratio * channels, norm_cfg, binary)
        self.fc2 = BinaryProduct(mlp_ratio * channels, channels, norm_cfg, binary)

    def forward(self, x: Tensor, shape: MapShape) -> Tensor:
        """Map rows ``(B · H · W, C)`` to the same shape."""
        normed = normalize(self.norm1, x)
        hidden = self.query(normed), self.key(normed), self.value(normed)
        bits = [shift_and_binarize(h, bias, self.binary) for h, bias in zip(hidden, self.bit_bias)]
        sizes = [(shape.batch, shape.height * shape.width)]
        x = x + self.output(attend(*bits, sizes, self.num_heads, self.quantizer))
        return x + self.fc2(self.fc1(normalize(self.norm2, x)))


@MODELS.register_module()
class BinaryViT(Backbone):
    """Plain binary ViT of 16×16 patches that returns four maps for mmseg's heads.

    The maps are taken after each quarter of the blocks, normalised, and resized from stride 16 to
    strides 4, 8, 16 and 32 by bilinear upsampling and a 2×2 mean, without parameters.

    Args, others as of :class:`BHViT`:
        channels: Channels of the tokens.
        depth: Number of blocks, at least 4. The defaults give 13 M parameters, like BHViT-Tiny.
        num_heads: Attention heads, a divisor of ``channels``.
        mlp_ratio: Hidden channels of the MLP over ``channels``.
    """

    def __init__(self, channels: int = 256, depth: int = 16, num_heads: int = 4,
                 mlp_ratio: int = 4, norm_cfg: dict | None = None, binary: bool = True,
                 in_channels: int = 3, out_indices: Sequence[int] = (0, 1, 2, 3),
                 pretrain_img_size: int = 224, init_cfg: dict | None = None) -> None:
        super().__init__(in_channels, out_indices, init_cfg)
        if num_heads < 1 or channels % num_heads:
            raise UserError(f'BinaryViT got channels={channels}, num_heads={num_heads}; channels '
                            'must be a multiple of num_heads.')
        if depth < len(STRIDES):
            raise UserError(f'BinaryViT got depth={depth}; four maps need at least four blocks.')
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        self.patch_embed = PatchEmbedding(
            in_channels, channels, norm_cfg, max(pretrain_img_size // PATCH, 1), PATCH)
        self.blocks = nn.ModuleList(
            BinaryViTBlock(channels, num_heads, mlp_ratio, norm_cfg, binary)
            for _ in range(depth))
        self.output_norms = nn.ModuleDict(
            {str(i): build_token_norm(norm_cfg, channels) for i in self.out_indices})

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Shapes as of :meth:`BHViT.forward`, with the same channels in each map."""
        self.check_image(image)
        rows, shape = self.patch_embed(image)
        # The block behind which each map is taken.
        ends = {(i + 1) * len(self.blocks) // len(STRIDES): i for i in self.out_indices}
        outputs = []
        for number, block in enumerate(self.blocks, 1):
            rows = block(rows, shape)
            if number in ends:
                maps = shape.to_map(normalize(self.output_norms[str(ends[number])], rows))
                outputs.append(self._rescale(maps, STRIDES[ends[number]], image.shape[2:]))
        return tuple(outputs)

    @staticmethod
    def _rescale(maps: Tensor, stride: int, size: Sequence[int]) -> Tensor:
        """Resize a map from stride 16 to another and remove the padding of the stem."""
        if stride < PATCH:
            maps = F.interpolate(maps, scale_factor=PATCH // stride, mode='bilinear',
                                 align_corners=False)
        elif stride > PATCH:
            maps = F.avg_pool2d(maps, stride // PATCH, ceil_mode=True, count_include_pad=False)
        height, width = (-(-length // stride) for length in size)
        return maps[:, :, :height, :width]
