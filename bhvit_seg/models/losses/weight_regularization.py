"""Regularization of latent weights (BHViT, arXiv 2503.02394), which flip ever more often near 0
under Adam, late in training; ``|w|`` is pulled towards 1."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..layers import latent_weights


@MODELS.register_module()
class WeightRegularizationLoss(nn.Module):
    """Mean over binary layers of ``mean(| |w| − 1 |)``, times ``loss_weight``."""

    def __init__(self, loss_weight: float = 0.1) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, model: nn.Module) -> Tensor | None:
        """Return the loss in float32, also under mixed precision; None without a binary layer."""
        weights = list(latent_weights(model).values())
        if not weights:
            return None
        with torch.autocast(weights[0].device.type, enabled=False):
            layers = [(w.float().abs() - 1).abs().mean() for w in weights]
            return self.loss_weight * torch.stack(layers).mean()
