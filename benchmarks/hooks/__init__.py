"""Hooks that suites compare; ``custom_imports`` of a config names this package."""

from .batch_norm_reestimation import BatchNormReestimationHook
from .weight_freezing import OscillationFreezingHook
from .weight_statistics import WeightStatisticsHook

__all__ = ['BatchNormReestimationHook', 'OscillationFreezingHook', 'WeightStatisticsHook']
