"""What several hooks need to know about a runner, and about the stage that weights are in."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from bhvit_seg.models.losses import binary_layers


def model_of(runner: Runner) -> nn.Module:
    """The model that is trained, without the wrapper of a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def set_binary_weights(model: nn.Module, binary: bool) -> None:
    """Say whether the binary layers of a model binarize their weights."""
    for layer in binary_layers(model).values():
        layer.binarize_weights = binary


def weights_rest(model: nn.Module) -> bool:
    """Whether the latent weights of a model are held until training ends."""
    return any(layer.weights_at_rest for layer in binary_layers(model).values())
