"""Classifiers of mmpretrain, which pre-train backbones; not imported by ``bhvit_seg.models``."""

import bhvit_seg.compat.mmpretrain  # noqa: F401  isort: skip

from .distillation import DistillationClassifier

__all__ = ['DistillationClassifier']
