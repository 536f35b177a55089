"""Checks of arguments and images, and initial weights of all backbones."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn

from bhvit_seg.errors import UserError


def check_choice(owner: str, name: str, value: object, choices: Sequence[object]) -> None:
    """Raise a UserError if the argument ``name`` of a backbone is none of ``choices``."""
    if value not in choices:
        raise UserError(f'{name} is {value!r}; {owner} takes {" or ".join(map(repr, choices))}.')


def check_out_indices(out_indices: Sequence[int]) -> tuple[int, ...]:
    """Return ``out_indices`` as a tuple; raise a UserError unless they are from 0 to 3."""
    if not set(out_indices) <= set(range(4)):
        raise UserError(f'out_indices={tuple(out_indices)} names stages that do not exist; '
                        'the stages are 0 to 3.')
    return tuple(out_indices)


class Backbone(BaseModule):
    """BHViT or a network compared with it, with the same initialisation."""

    def __init__(self, in_channels: int, out_indices: Sequence[int], init_cfg: dict | None) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.out_indices = check_out_indices(out_indices)

    def check_image(self, image: Tensor) -> None:
        if image.shape[1] != self.in_channels:
            raise UserError(
                f'the image has {image.shape[1]} channels but the backbone was built for '
                f'in_channels={self.in_channels}; give images with {self.in_channels} channels '
                'or set model.backbone.in_channels.')

    def init_weights(self) -> None:
        """Initialise every linear layer and convolution, then do what ``init_cfg`` says."""
        if not self._is_init:
            for module in self.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    trunc_normal_(module.weight, std=0.02)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        super().init_weights()
