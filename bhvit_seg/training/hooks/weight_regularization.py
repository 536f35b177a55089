"""The hook that switches the weight regularization on late in training."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.losses import WeightRegularizationLoss, latent_weights

from .common import model_of, weights_rest
from .training_stages import TrainingStagesHook


@HOOKS.register_module()
class WeightRegularizationHook(Hook):
    """Add ``loss_weight_regularization`` to the losses from a fraction of training on.

    The loss is added to what the model returns in ``mode='loss'``, so mmengine sums, logs, scales
    and back-propagates it like any other: under mixed precision, gradient accumulation and
    distributed training alike. Whether it is on follows from the iteration alone, so a resumed run
    goes on as if it had not been interrupted. A model without binary layers, such as the
    full-precision twin of a config, trains without it.

    A model that learns from a teacher takes its factor, the β of the paper, off the share of the
    labels. Weights that rest (``TrainingStagesHook``) are regularized no more: nothing moves them.

    Args:
        weight (float): Factor of the loss. Defaults to 0.1, as in the paper.
        begin (float): Fraction of training, 0 to 1, after which the loss is added. Defaults to
            0.9, as in the paper.

    Raises:
        UserError: ``weight`` is negative or ``begin`` not a fraction; before training: with
            distillation the two weights add up to more than 1 where both apply.
    """

    def __init__(self, weight: float = 0.1, begin: float = 0.9) -> None:
        if weight < 0 or not 0 <= begin <= 1:
            raise UserError(f'WeightRegularizationHook got weight={weight}, begin={begin}; weight '
                            'is at least 0 and begin a fraction of training between 0 and 1.')
        self.begin = begin
        self.loss = WeightRegularizationLoss(weight)
        self._handle = None

    def before_train(self, runner: Runner) -> None:
        """See that the weights of all terms fit together."""
        model = model_of(runner)
        rest = min((hook.begins[1] for hook in runner.hooks
                    if isinstance(hook, TrainingStagesHook)), default=1.0)
        used = self.begin < rest and latent_weights(model)
        if rest <= self.begin < 1:
            runner.logger.warning(
                f'weight regularization begins at {self.begin} of training and weights rest from '
                f'{rest} on, so that it has no effect: let WeightRegularizationHook.begin be '
                'less than TrainingStagesHook.rest_begin')
        if used and hasattr(model, 'regularization_weight'):
            model.check_regularization_weight(self.loss.loss_weight)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Attach the loss once its share of training begins, detach it when weights rest."""
        if runner.iter < self.begin * runner.max_iters:
            return
        model = model_of(runner)
        if weights_rest(model):
            self._detach(model)
            return
        if self._handle is not None:
            return
        self._handle = model.register_forward_hook(self._add_loss, with_kwargs=True)
        layers = len(latent_weights(model))
        if layers and hasattr(model, 'regularization_weight'):
            model.regularization_weight = self.loss.loss_weight
        runner.logger.info(f'weight regularization of {layers} binary layers begins at '
                           f'iteration {runner.iter + 1}')

    def _add_loss(self, model, args, kwargs, output):
        mode = kwargs.get('mode', args[2] if len(args) > 2 else None)
        if mode == 'loss':
            loss = self.loss(model)
            if loss is not None:
                output['loss_weight_regularization'] = loss
        return output

    def after_train(self, runner: Runner) -> None:
        """Detach the loss."""
        self._detach(model_of(runner))

    def _detach(self, model: nn.Module) -> None:
        if self._handle is None:
            return
        self._handle.remove()
        self._handle = None
        if hasattr(model, 'regularization_weight'):
            model.regularization_weight = 0.0
