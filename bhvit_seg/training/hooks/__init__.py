"""Hooks of training; importing registers them in mmseg's registries."""

from .checkpoint import ResumableCheckpointHook
from .cuda_graph import CudaGraphHook
from .dataset_check import DatasetCheckHook
from .non_finite import NonFiniteLossHook
from .training_stages import TrainingStagesHook
from .weight_regularization import WeightRegularizationHook

__all__ = ['CudaGraphHook', 'DatasetCheckHook', 'NonFiniteLossHook', 'ResumableCheckpointHook',
           'TrainingStagesHook', 'WeightRegularizationHook']
