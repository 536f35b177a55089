from .cl_dice import CLDiceLoss
from .cross_entropy import WeightedCrossEntropyLoss
from .distillation import FeatureDistillationLoss, PixelDistillationLoss
from .weight_regularization import WeightRegularizationLoss

__all__ = ['CLDiceLoss', 'FeatureDistillationLoss', 'PixelDistillationLoss',
           'WeightRegularizationLoss', 'WeightedCrossEntropyLoss']
