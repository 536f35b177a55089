"""The schedule of a training: iteration to stage of the weights, λ and β.

``L = (1 − λ − β)·L_cls + λ·L_dis + β·L_re`` (BHViT, arXiv 2503.02394). It depends on the iteration
alone, so that resumed runs equal uninterrupted ones. Hooks set parts of it and follow all of it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mmengine.hooks import Hook
from mmengine.runner import Runner

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import binary_layers
from bhvit_seg.models.teacher import TaughtMixin
from bhvit_seg.training.runner import model_of


class Stage(enum.IntEnum):
    """How weights of binary layers are treated; their inputs are binary in every stage."""

    REAL = 0
    BINARY = 1
    FROZEN = 2

    def __str__(self) -> str:
        return ('binary activations, real weights', 'binary activations and weights',
                'binary activations, frozen weights')[self]


@dataclass(frozen=True)
class Schedule:
    """The schedule of a training; begins are fractions of it, 0 to 1; λ + β above 1 is a
    UserError."""

    iterations: int
    weights_begin: float = 0.0  # to be binary
    frozen_begin: float = 1.0
    distillation_weight: float | None = None  # λ, in every iteration; None without a teacher
    regularization_weight: float = 0.0  # β, until weights are frozen
    regularization_begin: float = 1.0

    def __post_init__(self) -> None:
        if (self.distillation_weight is not None and self.regularization_begin < self.frozen_begin
                and self.distillation_weight + self.regularization_weight > 1):
            raise UserError(
                f'model.distillation_weight ({self.distillation_weight}) and the weight of '
                f'WeightRegularizationHook ({self.regularization_weight}) add up to more than 1: '
                'lower one of them')

    def stage(self, iteration: int) -> Stage:
        return Stage(sum(iteration >= begin * self.iterations
                         for begin in (self.weights_begin, self.frozen_begin)))

    def regularization(self, iteration: int) -> float:
        begun = iteration >= self.regularization_begin * self.iterations
        return self.regularization_weight * (begun and self.stage(iteration) != Stage.FROZEN)


class ScheduledHook(Hook):
    """A hook that follows the schedule, and may set a part of it."""

    part: dict[str, float] = {}  # fields of the schedule that this hook sets
    _schedule: Schedule | None = None

    def schedule(self, runner: Runner) -> Schedule:
        """Return the schedule of a training, from its model and all of its hooks."""
        if self._schedule is None or self._schedule.iterations != runner.max_iters:
            model = model_of(runner)
            parts: dict[str, float] = {}
            if isinstance(model, TaughtMixin):
                parts['distillation_weight'] = model.distillation_weight
            if binary_layers(model):
                for hook in (self, *getattr(runner, 'hooks', ())):
                    parts.update(hook.part if isinstance(hook, ScheduledHook) else {})
            self._schedule = Schedule(runner.max_iters, **parts)
        return self._schedule
