"""Common parts of the backbones: checks of arguments and images, initial weights."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn

from bhvit_seg.errors import UserError


def check_choice(owner: str, name: str, value: object, choices: Sequence[object]) -> None:
    """See that the argument ``name`` of the backbone ``owner`` is one of ``choices``.

    Raises:
        UserError: It is not.
    """
    if value not in choices:
        raise UserError(f'{name} is {value!r}; {owner} takes {" or ".join(map(repr, choices))}.')


def check_out_indices(out_indices: Sequence[int], stages: int) -> tuple[int, ...]:
    """Return ``out_indices`` as a tuple if each is that of a stage.

    Raises:
        UserError: One is not.
    """
    if not set(out_indices) <= set(range(stages)):
        raise UserError(f'out_indices={tuple(out_indices)} names stages that do not exist; '
                        f'the stages are 0 to {stages - 1}.')
    return tuple(out_indices)


def check_image(image: Tensor, in_channels: int) -> None:
    """See that a batch ``(B, C, H, W)`` has the channels that a backbone was built for.

    Raises:
        UserError: It has others.
    """
    if image.shape[1] != in_channels:
        raise UserError(
            f'the image has {image.shape[1]} channels but the backbone was built for '
            f'in_channels={in_channels}; give images with {in_channels} channels '
            'or set model.backbone.in_channels.')


def initialize_weights(model: nn.Module) -> None:
    """Initialise every linear layer and convolution of ``model``.

    BHViT, its baselines and all full-precision twins are initialised the same way.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
