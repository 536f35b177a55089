from .weight_regularization import WeightRegularizationLoss, latent_weights

__all__ = ['WeightRegularizationLoss', 'latent_weights']
