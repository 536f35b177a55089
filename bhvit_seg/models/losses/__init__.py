from .cross_entropy import WeightedCrossEntropyLoss
from .weight_regularization import WeightRegularizationLoss, latent_weights

__all__ = ['WeightRegularizationLoss', 'WeightedCrossEntropyLoss', 'latent_weights']
