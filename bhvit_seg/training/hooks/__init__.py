"""Hooks of training; importing registers them in mmseg's registries."""

from .batch_norm_reestimation import BatchNormReestimationHook
from .checkpoint import ResumableCheckpointHook
from .cuda_graph import CudaGraphHook
from .dataset_check import DatasetCheckHook
from .non_finite import NonFiniteLossHook
from .training_stages import TrainingStagesHook
from .weight_freezing import OscillationFreezingHook
from .weight_regularization import WeightRegularizationHook
from .weight_statistics import WeightStatisticsHook

__all__ = ['BatchNormReestimationHook', 'CudaGraphHook', 'DatasetCheckHook', 'NonFiniteLossHook',
           'OscillationFreezingHook', 'ResumableCheckpointHook', 'TrainingStagesHook',
           'WeightRegularizationHook', 'WeightStatisticsHook']
