"""The token mixers of BHViT (arXiv 2503.02394) on rows ``(B · H · W, C)``: MSGDC, MSMHA."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fused import prelu
from .layers import (
    BinaryConv2d,
    BinaryProjection,
    LayerScale,
    RPReLU,
    binarize_map,
    build_adaptive,
    build_token_norm,
    normalize,
    shift_and_binarize,
)
from .quantizers import ATTENTION_QUANTIZERS
from .tokens import MapShape, tile, to_rows


class MSGDC(nn.Module):
    """Multi-scale grouped dilated convolution.

    Binary 3×3 convolutions with each of ``dilations`` over the same bits, each followed by an
    RPReLU; their sum is normalised. (The paper's formula adds the input inside each branch; the
    released networks do not, and neither does this.)
    """

    def __init__(self, channels: int, norm_cfg: dict, groups: int = 4,
                 dilations: tuple[int, ...] = (1, 3, 5), binary: bool = True,
                 adaptive: str | None = None) -> None:
        super().__init__()
        self.binary = binary
        self.input_bias = nn.Parameter(torch.zeros(channels))
        self.adaptive = build_adaptive(adaptive, channels, binary)
        self.convs = nn.ModuleList(
            BinaryConv2d(channels, channels, 3, padding=d, dilation=d, groups=groups,
                         input_bias=False, binary=binary) for d in dilations)
        self.acts = nn.ModuleList(RPReLU(channels) for _ in dilations)
        self.norm = build_token_norm(norm_cfg, channels)

    def forward(self, x: Tensor, shape: MapShape) -> Tensor:
        maps = binarize_map(shape.to_map(x), self.input_bias, self.binary, self.adaptive)
        total = None
        for conv, act in zip(self.convs, self.acts):
            branch = prelu(to_rows(conv.convolve(maps, conv.bias - act.shift_in)), act.slope)
            total = branch if total is None else total.add_(branch)
        return normalize(self.norm, total.add_(sum(act.shift_out for act in self.acts)))


def attend(query: Tensor, key: Tensor, value: Tensor, sizes: list[tuple[int, int]],
           num_heads: int, quantizer: nn.Module | None = None) -> Tensor:
    """Multi-head attention inside each set of tokens.

    Args:
        query, key, value: Rows ``(N, C)``: the sets of tokens, concatenated, like the result.
        sizes: ``(number of sets, tokens in each)`` for each size of set.
        quantizer: Quantizes the softmax matrices of all sizes, ``(sets, heads, tokens, tokens)``.
    """
    channels = query.shape[1]
    scale = 1 / math.sqrt(channels // num_heads)
    queries, keys, values = (
        [part.view(*size, num_heads, -1).transpose(1, 2)
         for part, size in zip(rows.split([n * t for n, t in sizes]), sizes)]
        for rows in (query, key, value))
    matrices = [((q @ k.transpose(2, 3)) * scale).softmax(-1) for q, k in zip(queries, keys)]
    if quantizer is not None:
        matrices = quantizer(matrices)
    return torch.cat([(m.to(v.dtype) @ v).transpose(1, 2).reshape(-1, channels)
                      for m, v in zip(matrices, values)])


class MSMHA(nn.Module):
    """Multi-scale multi-head attention: windows, with pooled tokens of the whole map added.

    The pooled tokens of all windows are appended to the tokens of each window; attention runs
    inside each such set. q, k and v are binarized, the softmax is quantized to a sum of boolean
    matrices. Pooled tokens are averaged over the windows and repeated over their cell of the map.

    Args as of :class:`~bhvit_seg.models.backbones.BHViT`; ``window_size`` is also kernel and stride
    of the pooling, and ``span`` is ``attention_span``. The twin (``binary=False``) keeps the plain
    softmax.
    """

    def __init__(self, channels: int, num_heads: int, norm_cfg: dict, window_size: int = 7,
                 attention: str = 'qd', rectify: bool = False, binary: bool = True,
                 span: str = 'multi_scale') -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.binary = binary
        self.span = span
        multi_scale = span == 'multi_scale'
        self.pool_balance = nn.Parameter(torch.full((channels,), 0.5)) if multi_scale else None
        self.token_norm = nn.LayerNorm(channels)
        self.query, self.key, self.value = (
            BinaryProjection(channels, channels, norm_cfg, rectify, binary) for _ in range(3))
        self.bit_bias = nn.Parameter(torch.zeros(3, channels))
        self.quantizer = ATTENTION_QUANTIZERS[attention](num_heads) if binary else None
        self.context_norm = build_token_norm(norm_cfg, channels)
        self.context_act = RPReLU(channels)
        self.window_balance = nn.Parameter(torch.full((channels,), 0.5)) if multi_scale else None
        self.output = BinaryProjection(channels, channels, norm_cfg, rectify, binary)
        self.layer_scale = LayerScale(channels)

    def _pool(self, maps: Tensor) -> Tensor:
        """Pool one token per window: ``(B, H, W, C)`` to ``(B, windows, C)``.

        A pooling field is as large as a window and begins half a window before it; the mean counts
        the padding as zeros, as released. An even size yields one field too many.
        """
        size, maps = self.window_size, maps.permute(0, 3, 1, 2)
        rows, cols = ((length + size - 1) // size for length in maps.shape[2:])
        highest, mean = (pool(maps, size, size, size // 2)[:, :, :rows, :cols]
                         for pool in (F.max_pool2d, F.avg_pool2d))
        pooled = torch.lerp(mean, highest, self.pool_balance.to(mean.dtype).view(-1, 1, 1))
        return pooled.permute(0, 2, 3, 1).flatten(1, 2)

    def _spread(self, pooled: Tensor, shape: MapShape) -> Tensor:
        """Repeat each pooled token over its cell: ``(B, windows, C)`` to ``(B, H, W, C)``."""
        size = self.window_size
        grid = pooled.unflatten(1, ((shape.height + size - 1) // size, -1))
        grid = grid.repeat_interleave(size, 1)[:, :shape.height]
        return grid.repeat_interleave(size, 2)[:, :, :shape.width]

    def forward(self, x: Tensor, shape: MapShape) -> Tensor:
        """Map normalised rows ``(B · H · W, C)`` to the same; :meth:`output_affine` follows."""
        channels = x.shape[1]
        maps = x.view(*shape, channels)
        side = max(shape[1:]) if self.span == 'global' else self.window_size
        tiling = tile(shape.height, shape.width, side)
        parts = [part for row in tiling for part in row]
        sets = [part.split(maps) for part in parts]
        if self.span == 'multi_scale':
            pooled = self._pool(maps).unsqueeze(1)
            sets = [torch.cat([s, pooled.expand(-1, s.shape[1], -1, -1)], 2) for s in sets]
        sets = [s.flatten(0, 1) for s in sets]
        sizes = [(s.shape[0], s.shape[1]) for s in sets]
        rows = self.token_norm(torch.cat([s.flatten(0, 1) for s in sets]))

        projections = (self.query, self.key, self.value)
        hidden = [projection(rows) for projection in projections]
        shifts = [projection.act.shift_out for projection in projections]
        biases = [shift + bias for shift, bias in zip(shifts, self.bit_bias)]
        bits = [shift_and_binarize(h, bias, self.binary) for h, bias in zip(hidden, biases)]
        context = attend(*bits, sizes, self.num_heads, self.quantizer)
        context = normalize(self.context_norm, context, sum(shifts) - self.context_act.shift_in)
        for h in hidden:
            context = context.add_(h)
        context = prelu(context, self.context_act.slope)

        windows, pooled_sum = [], 0
        for part, (_, t), rows in zip(parts, sizes, context.split([n * t for n, t in sizes])):
            tokens = rows.view(shape.batch, part.count, t, channels)
            window, high = tokens.split([part.tokens, t - part.tokens], 2)
            windows.append(part.join(window))
            pooled_sum = pooled_sum + high.sum(1)
        columns = len(tiling[0])
        mixed = torch.cat([torch.cat(windows[i:i + columns], 2)
                           for i in range(0, len(windows), columns)], 1)
        if self.span == 'multi_scale':
            # Mixed precision sums in 32 bits.
            spread = self._spread(pooled_sum / pooled_sum.shape[1], shape).to(mixed.dtype)
            mixed = torch.lerp(spread, mixed, self.window_balance.to(mixed.dtype))
        # Both kinds of token have the same shift, hence also their weighted mean.
        return self.output((mixed + self.context_act.shift_out).view(-1, channels))

    def output_affine(self) -> tuple[Tensor, Tensor]:
        """Return scale and bias ``(C,)`` that complete the result of :meth:`forward`."""
        return self.layer_scale.after(self.output.act)
