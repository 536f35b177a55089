"""Base of networks that learn from a teacher (BHViT, arXiv 2503.02394).

``L = (1 − λ − β)·L_cls + λ·L_dis + β·L_re``: ``L_cls`` are the losses of the heads, ``L_dis``
compares with the teacher, ``L_re`` regularizes latent weights and is added by the training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import Registry
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from .weights import load_weights


class FrozenTeacher:
    """A frozen teacher, used for inference only; ``config`` is a file, or the config of its model.

    It is deliberately not an ``nn.Module``, which would be trained, saved, averaged and wrapped
    with the student. Copies of a student share one teacher.
    """

    registry: Registry  # where such models are built
    model: nn.Module | None = None  # until it is loaded
    classes: Sequence[str] | None = None  # that it was trained on, if its checkpoint says so

    def __init__(self, config: str | Path | dict, checkpoint: str | Path) -> None:
        if not checkpoint or not isinstance(checkpoint, (str, Path)):
            raise UserError(f'model.teacher.checkpoint is {checkpoint!r}: give the path of a .pth '
                            'file of a trained teacher')
        if not isinstance(config, (str, Path, dict)) or isinstance(config, dict) and \
                'type' not in config:
            raise UserError(f'model.teacher.config is {config!r}: give the path of a config, or '
                            'the config of a segmentor with its type')
        self.config, self.checkpoint = config, checkpoint

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self

    def load(self, device: torch.device | str) -> None:
        """Build the model and load its weights; a UserError says what is missing or damaged."""
        model = self.registry.build(self._model_config())
        meta = load_weights(model, self.checkpoint).get('meta') or {}
        self.classes = (meta.get('dataset_meta') or {}).get('classes')
        self.model = model.requires_grad_(False).eval().to(device)

    def _model_config(self) -> dict[str, Any]:
        if isinstance(self.config, dict):
            return self.config
        if not Path(self.config).is_file():
            raise UserError(f'no config of a teacher at {self.config}: set model.teacher.config '
                            'to the one it was trained with')
        cfg = Config.fromfile(str(self.config))
        model = cfg.get('model')
        if not model:
            raise UserError(f"the teacher's config {self.config} has no model: give the one it "
                            'was trained with')
        # mmengine's runner takes it from either place.
        if cfg.get('data_preprocessor'):
            model.setdefault('data_preprocessor', cfg.data_preprocessor)
        return model


class TaughtMixin:
    """A model with a teacher, which is loaded when training begins and needed for nothing else."""

    # β, set by the training while the regularization is part of the loss.
    regularization_weight = 0.0

    def set_teacher(self, kind: type[FrozenTeacher], teacher: dict[str, Any],
                    distillation_weight: float) -> None:
        """Take a teacher, ``config`` and ``checkpoint``, and λ; other values are a UserError."""
        if not 0 <= distillation_weight <= 1:
            raise UserError(f'model.distillation_weight is {distillation_weight}: give a share of '
                            'the loss between 0 and 1')
        if not isinstance(teacher, dict) or set(teacher) != {'config', 'checkpoint'}:
            given = ', '.join(teacher) if isinstance(teacher, dict) else repr(teacher)
            raise UserError(f'model.teacher has {given or "nothing"}: give its config and its '
                            'checkpoint, and nothing else')
        self.teacher = kind(**teacher)
        self.distillation_weight = distillation_weight

    def weigh_labels(self, value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Multiply a loss on labels, a tensor or a list of them, by 1 − λ − β."""
        share = 1 - self.distillation_weight - self.regularization_weight
        return [share * item for item in value] if isinstance(value, list) else share * value

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise a UserError if the teacher's classes are not ``classes`` in this order."""
        self.load_teacher()
        known = self.teacher.classes
        if known is not None and [*map(str.casefold, known)] != [*map(str.casefold, classes)]:
            raise UserError(
                f'the teacher {self.teacher.checkpoint} was trained on the classes '
                f'{", ".join(known)}, the training set has {", ".join(classes)}: set '
                'model.teacher to one trained on the same classes in the same order')

    def init_weights(self) -> None:
        """Initialise the student, then load the teacher: both are due when training begins."""
        super().init_weights()
        self.load_teacher()

    def load_teacher(self) -> None:
        """Load the teacher, unless it is there already; its inputs have to be the student's."""
        if self.teacher.model is not None:
            return
        self.teacher.load(next(self.parameters()).device)
        if not _same_inputs(self, self.teacher.model):
            raise UserError(
                f'the teacher {self.teacher.checkpoint} was trained on images normalised '
                'otherwise: give both models a data_preprocessor with the same mean, std and '
                'bgr_to_rgb')

    def _apply(self, fn: Callable, *args, **kwargs) -> nn.Module:
        if self.teacher.model is not None:  # it follows its student to its device
            self.teacher.model._apply(fn)
        return super()._apply(fn, *args, **kwargs)


def _same_inputs(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models normalise images equally: two pixels show it, as that is affine."""
    channels = getattr(first.data_preprocessor, 'mean', torch.empty(3)).numel()
    pixels = 10.0 * torch.arange(2 * channels).view(channels, 1, 2)
    made = []
    for model in (first, second):
        preprocessor = copy.copy(model.data_preprocessor)
        preprocessor.test_cfg, preprocessor.divisor = None, 1  # padding for tests changes no value
        try:
            inputs = preprocessor({'inputs': [pixels]}, False)['inputs']
        except (RuntimeError, UserError):  # another number of channels
            return False
        made.append(torch.stack(list(inputs)).cpu())
    return made[0].shape == made[1].shape and torch.allclose(*made)
