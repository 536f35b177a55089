"""The binary convolution block of our decode heads."""

from __future__ import annotations

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from .fused import add_tiled_, prelu
from .layers import BinaryConv2d, RPReLU, build_token_norm, normalize
from .tokens import MapShape, to_rows


class BinaryConvModule(nn.Module):
    """``RPReLU(norm(BinaryConv(x)) + shortcut(x))``, keeping height and width.

    As everywhere in BHViT, the shortcut carries real values around the binary product: the input
    itself, repeated along channels where the output has more of them, or averaged over groups of
    adjacent channels where it has fewer.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple or a divisor of ``in_channels``.
        kernel_size: Odd side of the kernel.
        norm_cfg: ``type`` ``'BN'``, ``'SyncBN'`` or ``'LN'``.
        binary: ``False`` gives the full-precision twin.

    Raises:
        UserError: Neither channel count is a multiple of the other.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm_cfg: dict,
                 binary: bool = True) -> None:
        super().__init__()
        if in_channels % out_channels and out_channels % in_channels:
            raise UserError(
                f'a binary convolution from {in_channels} to {out_channels} channels has no '
                'shortcut; choose channels of the head so that one is a multiple of the other.')
        self.ratio = in_channels // out_channels
        self.conv = BinaryConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2,
                                 bias=False, binary=binary)
        self.norm = build_token_norm(norm_cfg, out_channels)
        self.act = RPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``."""
        shape = MapShape.of(x)
        rows = to_rows(x)
        if self.ratio > 1:
            rows = F.avg_pool1d(rows, self.ratio)
        out = normalize(self.norm, to_rows(self.conv(x)), -self.act.shift_in)
        out = prelu(add_tiled_(out, rows), self.act.slope) + self.act.shift_out
        return shape.to_map(out)


def binarize_conv_modules(parent: nn.Module, norm_cfg: dict, binary: bool) -> None:
    """Replace every ``ConvModule`` below ``parent`` by a :class:`BinaryConvModule`."""
    for name, child in parent.named_children():
        if isinstance(child, ConvModule):
            conv = child.conv
            setattr(parent, name, BinaryConvModule(conv.in_channels, conv.out_channels,
                                                   conv.kernel_size[0], norm_cfg, binary))
        else:
            binarize_conv_modules(child, norm_cfg, binary)
