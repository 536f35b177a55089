"""Folding of affine norms, RPReLU's shifts and binary weights, and the parts of a folded network.

A :class:`Product` is a binary layer with everything linear behind it folded into its weight and
bias. A folded network is built in float64, where it agrees with the trained one to rounding, and is
then converted to float32 as a whole. Of equal ways to write it, the one that OpenVINO runs fastest
was chosen by measurement.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import LayerScale, RPReLU
from bhvit_seg.models.quantizers import binarize_weight


def double(tensor: Tensor) -> Tensor:
    """A detached copy in float64."""
    return tensor.detach().double().clone()


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and bias ``(C,)`` that do what a BatchNorm does in evaluation, in float64.

    Raises:
        UserError: The norm depends on the values that it normalises.
    """
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_var is None:
        raise UserError(f'norm_cfg gives {type(norm).__name__}, which does not fold into weights: '
                        'use a network with norm_cfg type BN or SyncBN')
    scale = 1 / (double(norm.running_var) + norm.eps).sqrt()
    bias = torch.zeros_like(scale)
    if norm.affine:
        scale, bias = scale * double(norm.weight), double(norm.bias)
    return scale, bias - double(norm.running_mean) * scale


def binary_weight(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """The weight that a binary layer multiplies with, in float64.

    Raises:
        UserError: It is the full-precision twin.
    """
    if not layer.binary:
        raise UserError('the config is of a full-precision twin (binary=False), which has no bits: '
                        'give the config of a binary network')
    return binarize_weight(double(layer.weight))


class Bits(nn.Module):
    """1 where ``x + bias >= 0``, else 0, on rows ``(N, C)``.

    Args:
        bias: ``(C,)``.
        signed: −1 instead of 0: what a convolution needs that pads zeros.
    """

    def __init__(self, bias: Tensor, signed: bool = False) -> None:
        super().__init__()
        self.signed = signed
        self.register_buffer('threshold', -double(bias))

    def forward(self, x: Tensor) -> Tensor:
        bits = (x >= self.threshold).to(x.dtype)
        return 2 * bits - 1 if self.signed else bits


class Rectifier(nn.Module):
    """PReLU on rows ``(N, C)`` or maps ``(1, C, H, W)``.

    Args:
        slope: ``(C,)``.
    """

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.register_buffer('slope', double(slope))

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.slope)


class Product(nn.Module):
    """Product of bits with a folded binary weight, and a bias.

    A linear layer takes bits of 0 and 1, which saves a pass over them: the weight is doubled and
    its sum taken off the bias. A convolution takes ±1.

    Args:
        layer: ``BinaryLinear`` or ``BinaryConv2d``; a 1×1 convolution becomes a linear layer.
        norm: The norm behind it, or None.
        shift: Added to the bias behind the norm.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, norm: nn.Module | None,
                 shift: Tensor) -> None:
        super().__init__()
        weight, bias = binary_weight(layer), double(shift)
        scale = torch.ones(len(weight), dtype=weight.dtype)
        if norm is not None:
            scale, offset = affine_of(norm)
            bias = bias + offset
        if layer.bias is not None:
            bias = bias + scale * double(layer.bias)
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        self.convolution = None
        if weight.dim() == 4 and weight.shape[2:].numel() > 1:
            self.convolution = dict(stride=layer.stride, padding=layer.padding,
                                    dilation=layer.dilation, groups=layer.groups)
        else:
            weight = weight.flatten(1)
            bias = bias - weight.sum(1)
            weight = 2 * weight
        self.register_buffer('weight', weight)
        self.register_buffer('bias', bias.expand(len(weight)).clone())

    def forward(self, bits: Tensor) -> Tensor:
        if self.convolution is None:
            return F.linear(bits, self.weight, self.bias)
        return F.conv2d(bits, self.weight, self.bias, **self.convolution)


def output_affine(layer_scale: LayerScale, act: RPReLU) -> tuple[Tensor, Tensor]:
    """Scale and bias ``(C,)`` that do the output shift of ``act`` and the LayerScale behind it."""
    scale = double(layer_scale.scale)
    return scale, double(layer_scale.bias) + scale * double(act.shift_out)


def add_tiled(rows: Tensor, part: Tensor) -> Tensor:
    """Rows ``(N, r · C)`` plus ``r`` copies of ``part`` ``(N, C)`` side by side."""
    channels = part.shape[1]
    if rows.shape[1] == channels:
        return rows + part
    tiled = rows.view(-1, rows.shape[1] // channels, channels) + part.unsqueeze(1)
    return tiled.view(-1, rows.shape[1])


def to_map(rows: Tensor, height: int, width: int) -> Tensor:
    """View rows ``(H · W, C)`` as a map ``(1, C, H, W)``."""
    return rows.view(1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def to_rows(maps: Tensor) -> Tensor:
    """Turn a map ``(1, C, H, W)`` into rows ``(H · W, C)``."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
