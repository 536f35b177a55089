"""The two token mixers of BHViT (arXiv 2503.02394): MSGDC and MSMHA.

Both map token rows ``(B · H · W, C)`` in row-major order to the same shape. Each has a variant
without multiple scales, for ablations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import ATTENTION_QUANTIZERS, attend
from .fused import prelu
from .layers import (
    BinaryConv2d,
    BinaryLinear,
    LayerScale,
    RPReLU,
    build_token_norm,
    normalize,
    shift_and_binarize,
)
from .tokens import MapShape, Windows, tile, to_rows


class MSGDC(nn.Module):
    """Multi-scale grouped dilated convolution.

    Three binary 3×3 convolutions with dilations 1, 3 and 5 over the same bits, each followed by
    an RPReLU; their sum is normalised. (The paper's formula adds the input inside each branch;
    the released networks do not, and neither does this.)

    Args:
        channels: Channels of the tokens.
        norm_cfg: Config of the norm.
        groups: Groups of the convolutions.
        dilations: One convolution for each. ``groups=1, dilations=(1,)`` is an ordinary
            convolution.
        binary: ``False`` gives the full-precision twin.
    """

    def __init__(self, channels: int, norm_cfg: dict, groups: int = 4,
                 dilations: tuple[int, ...] = (1, 3, 5), binary: bool = True) -> None:
        super().__init__()
        self.binary = binary
        self.input_bias = nn.Parameter(torch.zeros(channels))
        self.convs = nn.ModuleList(
            BinaryConv2d(channels, channels, 3, padding=d, dilation=d, groups=groups,
                         input_bias=False, binary=binary) for d in dilations)
        self.acts = nn.ModuleList(RPReLU(channels) for _ in dilations)
        self.norm = build_token_norm(norm_cfg, channels)

    def forward(self, x: Tensor, shape: MapShape) -> Tensor:
        maps = shape.to_map(shift_and_binarize(x, self.input_bias, self.binary))
        total = None
        for conv, act in zip(self.convs, self.acts):
            branch = prelu(to_rows(conv.convolve(maps, conv.bias - act.shift_in)), act.slope)
            total = branch if total is None else total.add_(branch)
        return normalize(self.norm, total.add_(sum(act.shift_out for act in self.acts)))


class _Projection(nn.Module):
    """``RPReLU(norm(BinaryLinear(h)) + h)``, the form of q, k, v and of the output."""

    def __init__(self, channels: int, norm_cfg: dict, rectify: bool, binary: bool) -> None:
        super().__init__()
        self.linear = BinaryLinear(channels, channels, rectify=rectify, binary=binary)
        self.norm = build_token_norm(norm_cfg, channels)
        self.act = RPReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(N, C)`` to the same shape, before the RPReLU's output shift."""
        out = normalize(self.norm, self.linear(x), -self.act.shift_in)
        return prelu(out.add_(x), self.act.slope)


class MSMHA(nn.Module):
    """Multi-scale multi-head attention: windows, with pooled tokens of the whole map added.

    The pooled tokens of all windows are appended to the tokens of each window; attention runs
    inside each such set. q, k and v are binarized, the softmax is quantized to a sum of boolean
    matrices. Window tokens are put back into the map; pooled tokens are averaged over the windows
    and repeated over their cell of the map.

    Args:
        channels: Channels of the tokens, a multiple of ``num_heads``.
        num_heads: Attention heads.
        norm_cfg: Config of the norms (the tokens' own norm is always LayerNorm).
        window_size: Side of a window in tokens, and kernel and stride of the pooling.
        attention: ``'qd'`` (quantization decomposition), ``'gsb'``, or ``'boolean'`` (one boolean
            matrix).
        rectify: Whether weights of linear layers get the gradient of ReCU.
        binary: ``False`` gives the full-precision twin, which keeps the plain softmax.
        span: What a token attends to: ``'multi_scale'`` as above, ``'window'`` (only its window),
            or ``'global'`` (the whole map as one window: ordinary multi-head attention).
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
        self.query = _Projection(channels, norm_cfg, rectify, binary)
        self.key = _Projection(channels, norm_cfg, rectify, binary)
        self.value = _Projection(channels, norm_cfg, rectify, binary)
        self.bit_bias = nn.Parameter(torch.zeros(3, channels))
        self.quantizer = ATTENTION_QUANTIZERS[attention](num_heads) if binary else None
        self.context_norm = build_token_norm(norm_cfg, channels)
        self.context_act = RPReLU(channels)
        self.window_balance = nn.Parameter(torch.full((channels,), 0.5)) if multi_scale else None
        self.output = _Projection(channels, norm_cfg, rectify, binary)
        self.layer_scale = LayerScale(channels)

    def _pool(self, maps: Tensor) -> Tensor:
        """One token for each window: ``(B, H, W, C)`` to ``(B, windows, C)``.

        A pooling field is as large as a window and begins half a window before it; the mean
        counts the padding as zeros, as released. An even size yields one field too many.
        """
        size, maps = self.window_size, maps.permute(0, 3, 1, 2)
        rows, cols = (-(-length // size) for length in maps.shape[2:])
        highest, mean = (pool(maps, size, size, size // 2)[:, :, :rows, :cols]
                         for pool in (F.max_pool2d, F.avg_pool2d))
        pooled = torch.lerp(mean, highest, self.pool_balance.to(mean.dtype).view(-1, 1, 1))
        return pooled.permute(0, 2, 3, 1).flatten(1, 2)

    def _spread(self, pooled: Tensor, shape: MapShape) -> Tensor:
        """Repeat each pooled token over its cell: ``(B, windows, C)`` to ``(B, H, W, C)``."""
        size = self.window_size
        grid = pooled.unflatten(1, (-(-shape.height // size), -1))
        grid = grid.repeat_interleave(size, 1)[:, :shape.height]
        return grid.repeat_interleave(size, 2)[:, :, :shape.width]

    def _tile(self, shape: MapShape) -> list[list[Windows]]:
        size = max(shape.height, shape.width) if self.span == 'global' else self.window_size
        return tile(shape.height, shape.width, size)

    def forward(self, x: Tensor, shape: MapShape) -> Tensor:
        """Map normalised rows ``(B · H · W, C)`` to the same shape, before the output's shift and
        LayerScale; :meth:`output_affine` gives both as one scale and bias."""
        channels = x.shape[1]
        maps = x.view(*shape, channels)
        tiling = self._tile(shape)
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
            spread = self._spread(pooled_sum / pooled_sum.shape[1], shape)
            mixed = torch.lerp(spread, mixed, self.window_balance.to(spread.dtype))
        # Both kinds of token have the same shift, hence also their weighted mean.
        return self.output((mixed + self.context_act.shift_out).view(-1, channels))

    def output_affine(self) -> tuple[Tensor, Tensor]:
        """Scale and bias ``(C,)`` that complete what :meth:`forward` returns."""
        return self.layer_scale.after(self.output.act)
