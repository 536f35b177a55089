"""What several hooks need to know about a runner."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def model_of(runner: Runner) -> nn.Module:
    """The model that is trained, without the wrapper of a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
