"""A trained segmentor as runtimes of ONNX run it fastest, in plain torch.

What torch computes anew at each call is computed once: binary weights and the norms behind them are
one weight, other norms a scale and a bias. Attention works on all windows at once, those at the
border padded and masked, and projects a pooled token once instead of once for each window.
"""

from __future__ import annotations

import copy
import math

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bhvit_seg.models.decode_heads import BinaryConvModule
from bhvit_seg.models.embeddings import Downsampling, PatchEmbedding
from bhvit_seg.models.layers import (
    BinaryConv2d,
    BinaryProjection,
    binary_layers,
    normalize,
    shift_and_binarize,
)
from bhvit_seg.models.mlp import BinaryMLP
from bhvit_seg.models.quantizers import AttentionQuantizer, binarize_weight
from bhvit_seg.models.token_mixers import MSMHA, prelu
from bhvit_seg.models.tokens import MapShape, to_rows
from bhvit_seg.native.export import fold_adaptive, read_preprocessing

# Hidden values computed at once: 2 MiB of float32, so that they do not leave the cache.
HIDDEN_VALUES = 1 << 19


class Pixels(nn.Module):
    """What a data preprocessor does to pixels; a UserError if it does more than normalise and swap.

    Attributes:
        order: Which channel of an image, red first, each channel of the model is.
        mean, scale: ``(C, 1, 1)``, of the model's channels.
    """

    def __init__(self, model: nn.Module, unit: float = 1) -> None:
        """``unit`` is the value of a pixel of 1."""
        super().__init__()
        tensors, self.order = read_preprocessing(model)
        mean, std = (torch.from_numpy(tensors[name][self.order] / unit).float().view(-1, 1, 1)
                     for name in ('mean', 'std'))
        self.register_buffer('mean', mean)
        self.register_buffer('scale', 1 / std)

    def forward(self, image: Tensor) -> Tensor:
        """Map an image ``(..., C, H, W)``, red first, to what the backbone gets."""
        channels = range(len(self.order))
        swapped = image if self.order == [*channels] else torch.cat(
            [image[..., i:i + 1, :, :] for i in self.order], -3)
        return (swapped.to(self.mean.dtype) - self.mean) * self.scale


class OnnxSegmentor(nn.Module):
    """From images ``(1, C, H, W)``, red first, divided by 255, to probabilities of classes."""

    def __init__(self, model: nn.Module, dynamic: bool = False) -> None:
        super().__init__()
        self.pixels, self.network = Pixels(model, 255), fold_for_runtimes(model, dynamic)
        self.threshold = model.decode_head.threshold if model.out_channels == 1 else None

    def forward(self, image: Tensor) -> Tensor:
        scores = self.network(self.pixels(image), mode='tensor')
        scores = F.interpolate(scores, image.shape[2:], mode='bilinear',
                               align_corners=self.network.align_corners)
        if self.threshold is not None:  # two classes, of which the first has score 0
            scores = scores - math.log(self.threshold / (1 - self.threshold))
            scores = torch.cat([torch.zeros_like(scores), scores], 1)
        return scores.softmax(1)


class Affine(nn.Module):
    """What a BatchNorm does in evaluation, to ``(..., C)``."""

    affine = False

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        scale = (norm.running_var + norm.eps).rsqrt()
        scale, bias = (scale * norm.weight, norm.bias) if norm.affine else (scale, 0)
        self.scale = nn.Parameter(scale)
        self.bias = nn.Parameter(bias - norm.running_mean * scale)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, x, self.scale)


class WindowAttention(MSMHA):
    """:class:`MSMHA` of one image, whatever its size."""

    def _sets(self, rows: Tensor, shape: MapShape, cells: tuple[int, int]) -> Tensor:
        """Tokens of each window, then the pooled ones: ``(N + P, C)`` to ``(P, heads, T, c)``."""
        size = self.window_size
        channels = rows.shape[1] // self.num_heads
        maps = self._pad(rows[:shape.height * shape.width].view(*shape[1:], -1), shape, cells)
        windows = maps.view(cells[0], size, cells[1], size, self.num_heads, channels)
        windows = windows.permute(0, 2, 4, 1, 3, 5).reshape(-1, self.num_heads, size**2, channels)
        pooled = rows[shape.height * shape.width:].view(-1, self.num_heads, channels)
        pooled = pooled.transpose(0, 1).unsqueeze(0).expand(windows.shape[0], -1, -1, -1)
        return torch.cat([windows, pooled], 2)

    def _pad(self, maps: Tensor, shape: MapShape, cells: tuple[int, int]) -> Tensor:
        bottom, right = (n * self.window_size - side for n, side in zip(cells, shape[1:]))
        return F.pad(maps, (0, 0, 0, right, 0, bottom))

    def _hide_padding(self, scores: Tensor, shape: MapShape, cells: tuple[int, int]) -> Tensor:
        """Make scores ``(P, heads, T, T)`` of keys that are padding so low that they get 0."""
        size = self.window_size
        real = self._pad(scores.new_ones(*shape[1:], 1), shape, cells)
        real = real.view(cells[0], size, cells[1], size).transpose(1, 2).reshape(-1, 1, 1, size**2)
        return scores + F.pad(1e4 * (real - 1), (0, scores.shape[-1] - size**2))

    def forward(self, x: Tensor, shape: MapShape) -> Tensor:
        size, channels, tokens = self.window_size, x.shape[1], x.shape[0]
        cells = tuple((side + size - 1) // size for side in shape[1:])
        pooled = self._pool(x.view(*shape, channels)).flatten(0, 1)
        rows = self.token_norm(torch.cat([x, pooled]))
        projections = (self.query, self.key, self.value)
        hidden = [projection(rows) for projection in projections]
        shifts = [projection.act.shift_out for projection in projections]
        query, key, value = (
            self._sets(shift_and_binarize(h, shift + bias, self.binary), shape, cells)
            for h, shift, bias in zip(hidden, shifts, self.bit_bias))
        scores = (query @ key.transpose(2, 3)) / math.sqrt(channels // self.num_heads)
        matrix = self._hide_padding(scores, shape, cells).softmax(-1)
        if self.quantizer is not None:
            matrix, = self.quantizer([matrix])
        window, high = (matrix @ value).transpose(1, 2).flatten(2).split(
            [size**2, scores.shape[-1] - size**2], 1)
        window = window.view(*cells, size, size, channels).transpose(1, 2)
        window = window.reshape(cells[0] * size, cells[1] * size, channels)
        window = window[:shape.height, :shape.width].reshape(-1, channels)
        residual = sum(hidden) + (sum(shifts) - self.context_act.shift_in)
        window = prelu(normalize(self.context_norm, window) + residual[:tokens],
                       self.context_act.slope)
        high = normalize(self.context_norm, high.reshape(-1, channels)).view(
            -1, pooled.shape[0], channels) + residual[tokens:]
        high = prelu(high.view(-1, channels), self.context_act.slope)
        high = high.view(-1, pooled.shape[0], channels).mean(0, keepdim=True)
        spread = self._spread(high, shape).reshape(-1, channels)
        mixed = torch.lerp(spread, window, self.window_balance)
        return self.output(mixed + self.context_act.shift_out)


class RowMLP(BinaryMLP):
    """:class:`BinaryMLP` on some rows at a time, whose hidden layer stays in cache.

    Hidden channel ``p · ratio + j`` is stored at ``j · channels + p``: those that are averaged then
    lie a row apart, since a mean over adjacent ones is slow.
    """

    chunked = True

    def order(self) -> None:
        order = torch.arange(self.fc1.out_features).view(-1, self.ratio).T.flatten()
        for tensor in (self.fc1.weight, self.fc1.bias, self.act1.slope, self.act1.shift_out,
                       self.fc2.input_bias):
            tensor.copy_(tensor[order])
        self.fc2.weight.copy_(self.fc2.weight[:, order])

    def forward(self, x: Tensor) -> Tensor:
        if not self.chunked:
            return self._forward(x)
        parts = x.split(max(1, HIDDEN_VALUES // self.fc1.out_features))
        return torch.cat([self._forward(part) for part in parts])

    def _forward(self, x: Tensor) -> Tensor:
        ratio, channels = self.ratio, x.shape[1]
        tiles = x.view(-1, channels // ratio, ratio).transpose(1, 2).unsqueeze(2)
        hidden = self.fc1(x).view(-1, ratio, ratio, channels // ratio) + tiles
        hidden = prelu(hidden.view(-1, ratio * channels), self.act1.slope)
        bits = shift_and_binarize(hidden, self.act1.shift_out + self.fc2.input_bias, self.binary)
        out = self.fc2.multiply(bits) + hidden.view(-1, ratio, channels).mean(1)
        return prelu(out, self.act2.slope)


class RowConv(nn.Module):
    """A 1×1 :class:`BinaryConv2d` as a product of rows, which convolutions of runtimes are not."""

    def __init__(self, conv: BinaryConv2d) -> None:
        super().__init__()
        self.binary, self.input_bias, self.bias = conv.binary, conv.input_bias, conv.bias
        self.weight = nn.Parameter(conv.weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        rows = shift_and_binarize(to_rows(x), self.input_bias, self.binary)
        return MapShape.of(x).to_map(F.linear(rows, self.weight, self.bias))


class ConstantPool(nn.Module):
    """Adaptive mean pooling as products with matrices, for maps of one size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        rows, columns = (F.adaptive_avg_pool1d(torch.eye(int(n)).double(), self.side)
                         for n in maps.shape[2:])
        return rows.T.to(maps) @ maps @ columns.to(maps)


def _fold(layer: nn.Module, norm: nn.Module, shift: Tensor) -> nn.Module:
    """Fold a norm and a shift behind it into a layer; return what stands in the norm's place."""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or not norm.track_running_stats:
        return norm
    affine = Affine(norm)
    layer.weight.mul_(affine.scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    bias = affine.bias + shift
    if layer.bias is not None:
        bias = bias + affine.scale * layer.bias
    layer.bias = nn.Parameter(bias)
    return nn.Identity()


@torch.no_grad()
def fold_for_runtimes(model: nn.Module, dynamic: bool = False) -> nn.Module:
    """Return a copy of a segmentor that predicts the same, to rounding, and traces well.

    The trace of a ``dynamic`` one fits images of other sizes. It lacks what needs a number of rows.
    """
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    fold_adaptive(model)
    for layer in binary_layers(model).values():
        layer.weight.copy_(binarize_weight(layer.weight))
        layer.binarize_weights = False
    for module in list(model.modules()):
        if isinstance(module, PatchEmbedding):
            module.norm = _fold(module.projection, module.norm, 0)
        elif isinstance(module, Downsampling):
            shift = 0 if module.act is None else -module.act.shift_in
            module.norm_out = _fold(module.conv, module.norm_out, shift)
        elif isinstance(module, BinaryConvModule):
            module.norm = _fold(module.conv, module.norm, -module.act.shift_in)
            if module.conv.kernel_size == (1, 1) and module.conv.adaptive is None:
                module.conv = RowConv(module.conv)
        elif isinstance(module, BinaryProjection):
            module.norm = _fold(module.linear, module.norm, -module.act.shift_in)
        elif isinstance(module, BinaryMLP):
            module.norm1 = _fold(module.fc1, module.norm1, -module.act1.shift_in)
            shift = module.act1.shift_out.unflatten(0, (-1, module.ratio)).mean(1)
            module.norm2 = _fold(module.fc2, module.norm2, shift - module.act2.shift_in)
            if isinstance(module.norm1, nn.Identity) and not module.fc1.in_features % module.ratio:
                module.__class__, module.chunked = RowMLP, not dynamic
                module.order()
        elif type(module) is MSMHA and module.span == 'multi_scale' and (
                module.quantizer is None or isinstance(module.quantizer, AttentionQuantizer)):
            module.__class__ = WindowAttention
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d):
                setattr(module, name, Affine(child))
            elif isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
                setattr(module, name, ConstantPool(child.output_size))
    return model.requires_grad_(False)
