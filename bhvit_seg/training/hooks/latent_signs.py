"""Which of its two values each binarized weight has, in memory and packed for checkpoints."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bhvit_seg.models.quantizers import sign


def channel_rows(weight: Tensor) -> Tensor:
    """Return latent weights as rows ``(out, inputs)``, without a gradient."""
    return weight.detach().flatten(1)


def latent_signs(weight: Tensor) -> Tensor:
    """Return the signs that binarization gives latent weights, relative to their channel's mean.

    Args:
        weight: Latent weights ``(out, ...)``.

    Returns:
        ±1 as int8, ``(out, inputs)``.
    """
    rows = channel_rows(weight)
    signs = torch.empty(rows.shape, dtype=torch.int8, device=rows.device)
    return sign(rows, rows.mean(1, keepdim=True), out=signs)


def pack(flags: Tensor) -> Tensor:
    """Return booleans as bits, eight to a byte, on the CPU."""
    return torch.from_numpy(np.packbits(flags.cpu().numpy()))


def unpack(packed: Tensor, like: Tensor) -> Tensor:
    """Return the booleans that :func:`pack` got, in the shape and on the device of ``like``."""
    bits = np.unpackbits(packed.cpu().numpy(), count=like.numel())
    return torch.from_numpy(bits).bool().view(like.shape).to(like.device)
