"""mmseg's SegFormer and UPerNet heads with binary convolutions and real-valued shortcuts.

Other heads can be binarized by ``conv_cfg``. These two lose less accuracy: a shortcut carries real
values around each binary convolution, and the classifier is full-precision.
"""

from __future__ import annotations

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import SegformerHead, UPerHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from ..fused import add_tiled_, prelu
from ..layers import BinaryConv2d, RPReLU, build_token_norm, normalize
from ..tokens import MapShape, to_rows


class BinaryConvModule(nn.Module):
    """``RPReLU(norm(BinaryConv(x)) + shortcut(x))``, keeping height and width.

    The shortcut repeats the input along channels, or averages groups of adjacent channels.

    Raises:
        UserError: Neither channel count is a multiple of the other.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm_cfg: dict,
                 binary: bool = True, adaptive: str | None = None) -> None:
        super().__init__()
        if in_channels % out_channels and out_channels % in_channels:
            raise UserError(
                f'a binary convolution from {in_channels} to {out_channels} channels has no '
                'shortcut; choose channels of the head so that one is a multiple of the other.')
        self.ratio = in_channels // out_channels
        self.conv = BinaryConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2,
                                 bias=False, binary=binary, adaptive=adaptive)
        self.norm = build_token_norm(norm_cfg, out_channels)
        self.act = RPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``."""
        rows = to_rows(x)
        if self.ratio > 1:
            rows = rows.unflatten(1, (-1, self.ratio)).mean(2)
        out = normalize(self.norm, to_rows(self.conv(x)), -self.act.shift_in)
        out = prelu(add_tiled_(out, rows), self.act.slope) + self.act.shift_out
        return MapShape.of(x).to_map(out)


def _binarize_conv_modules(parent: nn.Module, *args) -> None:
    """Replace every ``ConvModule`` below ``parent`` by a :class:`BinaryConvModule`."""
    for name, child in parent.named_children():
        if isinstance(child, ConvModule):
            conv = child.conv
            setattr(parent, name, BinaryConvModule(conv.in_channels, conv.out_channels,
                                                   conv.kernel_size[0], *args))
        else:
            _binarize_conv_modules(child, *args)


class _BinaryHead:
    """A head of mmseg whose ``ConvModule`` are binary.

    Args:
        binary: ``False`` gives the full-precision twin.
        norm_cfg: ``type`` ``'BN'`` (default), ``'SyncBN'`` or ``'LN'``.
        adaptive: As of :class:`~bhvit_seg.models.backbones.BHViT`.
        kwargs: As in mmseg; ``channels`` has to be a multiple or a divisor of each of
            ``in_channels``. ``conv_cfg`` and ``act_cfg`` have no effect.
    """

    def __init__(self, binary: bool = True, norm_cfg: dict | None = None,
                 adaptive: str | None = None, **kwargs) -> None:
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        super().__init__(norm_cfg=norm_cfg, **kwargs)
        _binarize_conv_modules(self, norm_cfg, binary, adaptive)

    def cls_seg(self, feat: Tensor) -> Tensor:
        """Logits ``(B, classes, H, W)``, in mixed precision as float32, for losses and argmax."""
        logits = super().cls_seg(feat)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


@MODELS.register_module()
class BinarySegformerHead(_BinaryHead, SegformerHead):
    """SegFormer: 1×1 convolutions to a common width, upsampled, fused by another one."""


@MODELS.register_module()
class BinaryUPerHead(_BinaryHead, UPerHead):
    """UPerNet: pyramid pooling, top-down path and 3×3 convolutions."""
