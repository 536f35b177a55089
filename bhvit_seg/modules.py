"""Importing this module (``custom_imports`` of configs) registers everything that configs name."""

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import bhvit_seg.datasets.open_earth_map
import bhvit_seg.datasets.rs_lvf
import bhvit_seg.datasets.transforms
import bhvit_seg.datasets.unlabelled
import bhvit_seg.evaluation.metric
import bhvit_seg.models
import bhvit_seg.training.hooks
import bhvit_seg.training.imitation
import bhvit_seg.training.loops
import bhvit_seg.training.optim  # noqa: F401
from bhvit_seg.compat.inferencer import adapt_inferencer

adapt_inferencer()
