"""BHViT's windowed attention folded for one map size.

Rows are gathered by constant indices, so that windows need neither padding nor transposes. A pooled
token is the same in every window up to its query, key and value, which are therefore computed once.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.quantizers import AttentionQuantizer
from bhvit_seg.models.token_mixers import MSMHA
from bhvit_seg.models.tokens import tile

from .folding import Bits, Product, Rectifier, affine_of, double, output_affine


class _Projection(nn.Module):
    """``prelu(norm(product) + x)``, without the output shift, which consumers have folded in."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.bits = Bits(projection.linear.input_bias)
        self.product = Product(projection.linear, projection.norm, -projection.act.shift_in)
        self.act = Rectifier(projection.act.slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.product(self.bits(x)) + x)


class FoldedMSMHA(nn.Module):
    """Attention in windows with pooled tokens as further keys, with norm and residual.

    Args:
        norm: The norm before it.
        mixer: The trained layer.
        height, width: Of the map, in tokens.

    Raises:
        UserError: Attention other than QD.
    """

    def __init__(self, norm: nn.Module, mixer: MSMHA, height: int, width: int) -> None:
        super().__init__()
        if not isinstance(mixer.quantizer, AttentionQuantizer):
            raise UserError("attention is not 'qd': the other kinds exist for ablations only, "
                            "use a network with attention 'qd'")
        self.num_heads = mixer.num_heads
        scale, bias = affine_of(norm)
        self.register_buffer('in_scale', scale)
        self.register_buffer('in_bias', bias)
        self.register_buffer('pool_balance', double(mixer.pool_balance))
        tokens = mixer.token_norm
        self.register_buffer('token_weight', double(tokens.weight))
        self.register_buffer('token_bias', double(tokens.bias))
        self.eps = tokens.eps
        projections = (mixer.query, mixer.key, mixer.value)
        self.projections = nn.ModuleList(_Projection(p) for p in projections)
        self.bits = nn.ModuleList(Bits(double(p.act.shift_out) + double(bias), signed=True)
                                  for p, bias in zip(projections, mixer.bit_bias))
        self.tokens, self.channels = height * width, len(scale)
        head_channels = self.channels // self.num_heads
        alpha = double(mixer.quantizer.alpha)
        self.softmax_scale = 1 / math.sqrt(head_channels)
        self.register_buffer('level_scale', (3 / alpha).view(-1, 1, 1))
        self.register_buffer('zero_point', double(mixer.quantizer.zero_point).view(-1, 1, 1))
        scale, bias = affine_of(mixer.context_norm)
        self.register_buffer('context_scale', scale * alpha.repeat_interleave(head_channels))
        self.register_buffer('context_bias', bias - double(mixer.context_act.shift_in) + sum(
            double(p.act.shift_out) for p in projections))
        self.context_act = Rectifier(mixer.context_act.slope)
        self.register_buffer('context_shift', double(mixer.context_act.shift_out))
        self.register_buffer('window_balance', double(mixer.window_balance))
        self.output = _Projection(mixer.output)
        scale, bias = output_affine(mixer.layer_scale, mixer.output.act)
        self.register_buffer('out_scale', scale)
        self.register_buffer('out_bias', bias)
        self._register_indices(height, width, mixer.window_size)

    def _register_indices(self, height: int, width: int, size: int) -> None:
        """Constant indices of rows: of fields, sets of tokens, and where each token went.

        ``fields`` lists the tokens that each pooled token takes the maximum of, some twice;
        ``mean`` is the matrix of the padded mean. A set holds a window's tokens and all pooled
        ones, which follow the map's as rows ``H · W ...``; ``sets{i}`` are the rows of all sets of
        one size for each head, of ``(rows · heads, head channels)``. ``windows`` and ``pooled``
        find context rows: of the map's tokens in order, and of each window's pooled ones.
        """
        grid = torch.arange(height * width).view(height, width)
        rows, cols = -(-height // size), -(-width // size)
        fields, mean = [], torch.zeros(rows * cols, height * width, dtype=torch.float64)
        for i in range(rows):
            for j in range(cols):
                y, x = (torch.arange(size) + k * size - size // 2 for k in (i, j))
                inside = grid[y[(y >= 0) & (y < height)]][:, x[(x >= 0) & (x < width)]].flatten()
                mean[len(fields), inside] = 1 / size**2
                fields.append(grid[y.clamp(0, height - 1)][:, x.clamp(0, width - 1)].flatten())
        self.register_buffer('fields', torch.stack(fields).flatten())
        self.register_buffer('mean', mean)
        self.cells = len(fields)
        self.register_buffer('cell_of_token', (
            (torch.arange(height) // size).view(-1, 1) * cols + torch.arange(width) // size
        ).flatten())

        pooled_rows = height * width + torch.arange(self.cells)
        heads = torch.arange(self.num_heads).view(-1, 1)
        self.set_shapes = []
        offset, pooled_places = 0, []
        window_places = torch.empty(height * width, self.num_heads, dtype=torch.int64)
        parts = [part for row in tile(height, width, size) for part in row]
        for i, part in enumerate(parts):
            tokens = part.split(grid.view(1, height, width, 1)).flatten(1).view(part.count, -1)
            tokens = torch.cat([tokens, pooled_rows.expand(part.count, -1)], 1)
            sets, length = tokens.shape
            self.set_shapes.append((sets, self.num_heads, length))
            self.register_buffer(
                f'sets{i}', (tokens.unsqueeze(1) * self.num_heads + heads).flatten())
            # context of a part is (sets, heads, length): the place of each token's first head
            places = offset + (torch.arange(sets).view(-1, 1) * self.num_heads * length
                               + torch.arange(length))
            places = places.unsqueeze(2) + torch.arange(self.num_heads) * length
            window_places[tokens[:, :part.tokens].flatten()] = places[:, :part.tokens].flatten(0, 1)
            pooled_places.append(places[:, part.tokens:])
            offset += sets * self.num_heads * length
        self.register_buffer('window_places', window_places.flatten())
        self.register_buffer('pooled_places', torch.cat(pooled_places).flatten())

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Context of all sets, ``(sets · heads · tokens, head channels)``, without α."""
        contexts = []
        for i, shape in enumerate(self.set_shapes):
            index = getattr(self, f'sets{i}')
            q, k, v = (bits.view(-1, self.channels // self.num_heads).index_select(0, index)
                       .view(*shape, -1) for bits in (query, key, value))
            matrix = ((q @ k.transpose(2, 3)) * self.softmax_scale).softmax(-1)
            levels = (matrix * self.level_scale + self.zero_point).round().clamp(0, 3)
            contexts.append((levels @ v).flatten(0, 2))
        return torch.cat(contexts)

    def forward(self, rows: Tensor) -> Tensor:
        tokens, channels = self.tokens, self.channels
        normed = rows * self.in_scale + self.in_bias
        highest = normed.index_select(0, self.fields).view(self.cells, -1, channels).amax(1)
        average = self.mean @ normed
        pooled = average + self.pool_balance * (highest - average)
        x = F.layer_norm(torch.cat([normed, pooled]), (channels,), self.token_weight,
                         self.token_bias, self.eps)
        hidden = [projection(x) for projection in self.projections]
        context = self._attend(*(bits(h) for bits, h in zip(self.bits, hidden)))
        residual = hidden[0] + hidden[1] + hidden[2] + self.context_bias
        window = context.index_select(0, self.window_places).view(tokens, channels)
        window = self.context_act(window * self.context_scale + residual[:tokens])
        high = context.index_select(0, self.pooled_places).view(-1, channels)
        high = (high * self.context_scale).view(-1, self.cells, channels) + residual[tokens:]
        high = self.context_act(high.view(-1, channels))
        high = high.view(-1, self.cells, channels).mean(0)
        spread = high.index_select(0, self.cell_of_token)
        mixed = spread + self.window_balance * (window - spread) + self.context_shift
        return rows + self.output(mixed) * self.out_scale + self.out_bias
