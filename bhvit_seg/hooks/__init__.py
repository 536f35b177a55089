"""Hooks of training; importing registers them in mmseg's registries."""

import bhvit_seg.mm  # noqa: F401  (says what to type if the stack is missing)  isort: skip

from .checkpoint import ResumableCheckpointHook
from .dataset_check import DatasetCheckHook
from .non_finite import NonFiniteLossHook
from .weight_regularization import WeightRegularizationHook

__all__ = ['DatasetCheckHook', 'NonFiniteLossHook', 'ResumableCheckpointHook',
           'WeightRegularizationHook']
