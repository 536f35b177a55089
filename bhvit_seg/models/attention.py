"""Attention inside sets of tokens, and its plain binarization.

:func:`attend` is what BHViT's token mixer and the plain binary ViT have in common.
:class:`BooleanAttentionQuantizer` is attention without quantization decomposition: each matrix
becomes one boolean matrix, by the threshold of ReActNet's RSign.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .quantizers import AttentionQuantizer, GroupSuperpositionQuantizer, binarize_activation


class BooleanAttentionQuantizer(nn.Module):
    """RSign of attention matrices: 1 where an entry passes a learned threshold, else 0.

    With ``u = keys · A``, whose rows have the mean 1 whatever their number of keys, the result is
    ``scale / keys · (sign(u + bias) + 1) / 2``. Gradient: that of
    :func:`~bhvit_seg.models.quantizers.binarize_activation`, so ``scale · max(1 − |u + bias|, 0)``
    for an entry of ``A``. The initial bias of −1 makes the mean of a row the threshold.

    Args:
        num_heads: Number of heads; each has a bias and a scale.
    """

    boolean_matrices = 1

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((num_heads,), -1.))
        self.scale = nn.Parameter(torch.ones(num_heads))

    def forward(self, matrices: list[Tensor]) -> list[Tensor]:
        """Quantize softmax matrices ``(sets, heads, queries, keys)``."""
        return [self._quantize(m) for m in matrices]

    def _quantize(self, matrix: Tensor) -> Tensor:
        keys = matrix.shape[-1]
        heads_last = (keys * matrix).transpose(1, 3)
        bits = binarize_activation(heads_last, self.bias.to(matrix.dtype)).transpose(1, 3)
        return (bits + 1) * (self.scale / (2 * keys)).view(-1, 1, 1)


# By the value of `attention` in a config.
ATTENTION_QUANTIZERS = {'qd': AttentionQuantizer, 'gsb': GroupSuperpositionQuantizer,
                        'boolean': BooleanAttentionQuantizer}


def attend(query: Tensor, key: Tensor, value: Tensor, sizes: list[tuple[int, int]],
           num_heads: int, quantizer: nn.Module | None = None) -> Tensor:
    """Multi-head attention inside each set of tokens.

    Args:
        query, key, value: Rows ``(N, C)``: the sets of tokens, concatenated.
        sizes: ``(number of sets, tokens in each)`` for each size of set.
        num_heads: Attention heads, a divisor of ``C``.
        quantizer: Maps the softmax matrices of all sizes, ``(sets, heads, tokens, tokens)`` each,
            to quantized ones; ``None`` leaves them as they are.

    Returns:
        Context rows ``(N, C)``.
    """
    channels = query.shape[1]
    scale = 1 / math.sqrt(channels // num_heads)
    parts = [[part.view(*size, num_heads, -1).transpose(1, 2)
              for part, size in zip(rows.split([n * t for n, t in sizes]), sizes)]
             for rows in (query, key, value)]
    matrices = [((q @ k.transpose(2, 3)) * scale).softmax(-1)
                for q, k in zip(parts[0], parts[1])]
    if quantizer is not None:
        matrices = quantizer(matrices)
    return torch.cat([(m.to(v.dtype) @ v).transpose(1, 2).reshape(-1, channels)
                      for m, v in zip(matrices, parts[2])])
