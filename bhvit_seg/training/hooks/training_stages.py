"""Training in stages: binary activations, then binary weights too, then frozen signs.

Binary activations cost most of the accuracy and are learned first, with real weights (ReActNet).
Finally latent weights are frozen, so that norms and scales adapt to a constant binary network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import binary_layers, latent_weights, set_binary_weights
from bhvit_seg.models.quantizers import ATTENTION_QUANTIZERS
from bhvit_seg.models.weights import check_fit, load_checkpoint_safely, state_dict_of
from bhvit_seg.training.optim import latent_groups
from bhvit_seg.training.runner import model_of
from bhvit_seg.training.schedule import ScheduledHook, Stage

PARTS_OF_TRAINING = ('auxiliary_head.', 'feature_loss.')


@HOOKS.register_module()
class TrainingStagesHook(ScheduledHook):
    """Take a binary network through three stages, each a fraction of the iterations.

    1. Activations are binary, weights real.
    2. Weights are binary too. The optimizer's moments are reset.
    3. Latent weights are frozen: no gradient, decay or momentum moves them. An ``EMAHook`` average
       takes them over unchanged.

    Validation always uses binary weights, so scores are low in the first stage. A resumed run
    equals an uninterrupted one.

    Args:
        weights_begin: Fraction of training after which the weights are binary; 0: no first stage.
        rest_begin: Fraction of training after which latent weights are frozen; 1: no third stage.
        weight_decay: Decay of latent weights in the first stage and after it, such as ``(5e-6,
            0.)``; needs ``LatentWeightOptimWrapperConstructor``. None: that of the optimizer.
        warm_start: Checkpoint of the full-precision twin to start from.

    Raises:
        UserError: The fractions are out of order, or ``weight_decay`` is not two numbers; before
            training: the model has no binary layer, the checkpoint is missing or not of the twin,
            or latent weights have no parameter group of their own.
    """

    priority = 'ABOVE_NORMAL'  # before hooks that use the model in an iteration

    def __init__(self, weights_begin: float = 0.4, rest_begin: float = 0.9,
                 weight_decay: Sequence[float] | None = None,
                 warm_start: str | None = None) -> None:
        if not 0 <= weights_begin <= rest_begin <= 1:
            raise UserError(f'TrainingStagesHook got weights_begin={weights_begin}, rest_begin='
                            f'{rest_begin}: give fractions of training between 0 and 1, in this '
                            'order')
        if weight_decay is not None and (len(weight_decay) != 2 or min(weight_decay) < 0):
            raise UserError(f'TrainingStagesHook got weight_decay={weight_decay}: give two numbers '
                            'that are not negative, for the first stage and for those after it')
        self.part = dict(weights_begin=weights_begin, frozen_begin=rest_begin)
        self.weight_decay = weight_decay
        self.warm_start = warm_start
        self._stage: Stage | None = None
        self._handles: list = []

    def before_train(self, runner: Runner) -> None:
        model = model_of(runner)
        if not binary_layers(model):
            raise UserError(f'TrainingStagesHook has nothing to do: the {type(model).__name__} has '
                            'no binary layer; leave the hook out')
        if self.weight_decay is not None:
            latent_groups(runner.optim_wrapper.optimizer, model)
        if self.warm_start and runner.iter == 0:
            load_twin(model, self.warm_start)
            runner.logger.info(f'begins from the weights of {self.warm_start}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        schedule = self.schedule(runner)
        stage = schedule.stage(runner.iter)
        if stage == self._stage:
            return
        self._stage = stage
        model, optimizer = model_of(runner), runner.optim_wrapper.optimizer
        set_binary_weights(model, stage != Stage.REAL)
        if runner.iter > 0 and stage != Stage.REAL == schedule.stage(runner.iter - 1):
            optimizer.state.clear()
        if self.weight_decay is not None:
            for group in latent_groups(optimizer, model):
                group['weight_decay'] = self.weight_decay[stage != Stage.REAL]
        if stage == Stage.FROZEN:
            self._freeze(runner, latent_weights(model))
        runner.logger.info(f'stage {stage + 1} of {len(Stage)} at iteration {runner.iter + 1}: '
                           f'{stage}')

    @torch.no_grad()
    def _freeze(self, runner: Runner, weights: dict[str, nn.Parameter]) -> None:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                for name, average in latent_weights(hook.ema_model.module).items():
                    average.copy_(weights[name])

        def drop_gradients(*_) -> None:
            for weight in weights.values():
                weight.grad = None

        # Zero for clipping and exchange between processes, None for the optimizer's step, which
        # would otherwise apply momentum and decay.
        self._handles = [weight.register_hook(torch.zeros_like) for weight in weights.values()]
        self._handles.append(runner.optim_wrapper.optimizer.register_step_pre_hook(drop_gradients))

    def before_val(self, runner: Runner) -> None:
        set_binary_weights(model_of(runner), True)

    def after_val(self, runner: Runner) -> None:
        set_binary_weights(model_of(runner), self._stage != Stage.REAL)

    def after_train(self, runner: Runner) -> None:
        set_binary_weights(model_of(runner), True)
        while self._handles:
            self._handles.pop().remove()
        self._stage = None


def load_twin(model: nn.Module, path: str | Path) -> None:
    """Load the weights of a full-precision twin into a binary model.

    Attention quantizers, auxiliary heads and adapters to a teacher keep their initial values.

    Raises:
        UserError: The checkpoint is missing or damaged, or is not of the twin.
    """
    state_dict = state_dict_of(load_checkpoint_safely(path))
    kept = (*PARTS_OF_TRAINING, *(
        f'{name}.' for name, module in model.named_modules()
        if isinstance(module, tuple(ATTENTION_QUANTIZERS.values()))))
    for key, value in model.state_dict().items():
        if key.startswith(kept):
            state_dict.setdefault(key, value)
    check_fit(model, state_dict, path)
    model.load_state_dict(state_dict)
