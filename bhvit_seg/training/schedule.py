"""What a training does at an iteration: stage of the weights, λ, β, and whether signs are frozen.

``L = (1 − λ − β)·L_cls + λ·L_dis + β·L_re`` (BHViT, arXiv 2503.02394). All of it follows from the
iteration alone, so that a resumed run does what an uninterrupted one does. Hooks set parts of it
(``TrainingStagesHook``, ``WeightRegularizationHook``) and act by all of it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmengine.hooks import Hook
from mmengine.runner import Runner

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import binary_layers
from bhvit_seg.models.teacher import TaughtMixin
from bhvit_seg.training.runner import model_of


class Stage(enum.IntEnum):
    """What is done with the weights of binary layers; their inputs are binary in every stage."""

    REAL = 0
    BINARY = 1
    FROZEN = 2

    def __str__(self) -> str:
        return ('binary activations, real weights', 'binary activations and weights',
                'binary activations, frozen weights')[self]


@dataclass(frozen=True)
class TrainingState:
    """What holds in one iteration.

    Attributes:
        stage: Of the weights.
        distillation_weight: λ.
        regularization_weight: β.
    """

    stage: Stage
    distillation_weight: float = 0.0
    regularization_weight: float = 0.0

    @property
    def binary_weights(self) -> bool:
        """Whether layers compute with binary weights."""
        return self.stage != Stage.REAL

    @property
    def frozen(self) -> bool:
        """Whether no latent weight moves, so that no sign flips."""
        return self.stage == Stage.FROZEN


@dataclass(frozen=True)
class Schedule:
    """The course of a training; fractions are of its iterations, 0 to 1.

    Attributes:
        iterations: Length of the training.
        weights_begin: Fraction after which weights are binary.
        frozen_begin: Fraction after which latent weights are frozen.
        distillation_weight: λ, in every iteration; None without a teacher.
        regularization_weight: β, from ``regularization_begin`` until weights are frozen.
        regularization_begin: Fraction after which β applies.

    Raises:
        UserError: λ and β add up to more than 1 where both apply.
    """

    iterations: int
    weights_begin: float = 0.0
    frozen_begin: float = 1.0
    distillation_weight: float | None = None
    regularization_weight: float = 0.0
    regularization_begin: float = 1.0

    def __post_init__(self) -> None:
        if self.distillation_weight is not None and self.regularizes and (
                self.distillation_weight + self.regularization_weight > 1):
            raise UserError(
                f'model.distillation_weight ({self.distillation_weight}) and the weight of '
                f'WeightRegularizationHook ({self.regularization_weight}) add up to more than 1: '
                'lower one of them')

    @property
    def regularizes(self) -> bool:
        """Whether β applies in any iteration."""
        return self.regularization_begin < self.frozen_begin

    def at(self, iteration: int) -> TrainingState:
        """Return what holds in an iteration, counted from 0."""
        stage = Stage(sum(iteration >= begin * self.iterations
                          for begin in (self.weights_begin, self.frozen_begin)))
        regularized = (stage != Stage.FROZEN
                       and iteration >= self.regularization_begin * self.iterations)
        return TrainingState(stage, self.distillation_weight or 0.0,
                             self.regularization_weight if regularized else 0.0)


class ScheduledHook(Hook):
    """A hook that acts by the schedule, and may set a part of it.

    Attributes:
        part: Fields of :class:`Schedule` that this hook sets.
    """

    part: dict[str, float] = {}
    _schedule: Schedule | None = None

    def schedule(self, runner: Runner) -> Schedule:
        """Return the schedule of a training, from its model and all of its hooks.

        Raises:
            UserError: λ and β do not fit each other.
        """
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
