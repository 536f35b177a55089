"""Regularization of latent weights (BHViT, arXiv 2503.02394).

Under Adam, latent weights that hover around 0 flip their sign ever more often late in training.
Drawing ``|w|`` towards 1 takes them out of that zone.
"""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..layers import BinaryConv2d, BinaryLinear


def latent_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the latent weights of all binary layers of ``model``, by layer name."""
    return {name: module.weight for name, module in model.named_modules()
            if isinstance(module, (BinaryConv2d, BinaryLinear)) and module.binary}


@MODELS.register_module()
class WeightRegularizationLoss(nn.Module):
    """Mean over binary layers of ``mean(| |w| − 1 |)``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 0.1.
    """

    def __init__(self, loss_weight: float = 0.1) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, model: nn.Module) -> Tensor:
        """Return the loss of a model as a float32 scalar, also under mixed precision.

        Raises:
            ValueError: The model has no binary layer.
        """
        weights = latent_weights(model)
        if not weights:
            raise ValueError(f'{type(model).__name__} has no binary layer to regularize; give a '
                             'model that has some, or drop the loss.')
        device = next(iter(weights.values())).device
        with torch.autocast(device.type, enabled=False):
            layers = [(w.float().abs() - 1).abs().mean() for w in weights.values()]
            return self.loss_weight * torch.stack(layers).mean()
