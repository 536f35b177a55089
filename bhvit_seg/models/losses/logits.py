"""Logits of one channel as those of two classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def with_background(logits: Tensor) -> Tensor:
    """Add the logit 0 of the background to one channel ``(B, 1, H, W)``.

    The softmax of both is the sigmoid of the one. Logits of more channels are returned as they
    are.
    """
    return F.pad(logits, (0, 0, 0, 0, 1, 0)) if logits.shape[1] == 1 else logits
