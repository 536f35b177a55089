from mmengine.registry import HOOKS
from mmengine.runner import Runner

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import latent_weights
from bhvit_seg.models.losses import WeightRegularizationLoss
from bhvit_seg.models.teacher import TaughtMixin
from bhvit_seg.training.runner import model_of
from bhvit_seg.training.schedule import ScheduledHook


@HOOKS.register_module()
class WeightRegularizationHook(ScheduledHook):
    """Add ``loss_weight_regularization`` to the losses from a fraction of training on.

    With a teacher, its factor (the β of the paper) is subtracted from the weight of the labels.
    Frozen weights (``TrainingStagesHook``) are not regularized. Defaults are the paper's.

    Args:
        weight: Factor of the loss.
        begin: Fraction of training, 0 to 1, after which the loss is added.

    Raises:
        UserError: ``weight`` is negative or ``begin`` not a fraction; before training: with
            distillation the two weights add up to more than 1 where both apply.
    """

    def __init__(self, weight: float = 0.1, begin: float = 0.9) -> None:
        if weight < 0 or not 0 <= begin <= 1:
            raise UserError(f'WeightRegularizationHook got weight={weight}, begin={begin}; weight '
                            'is at least 0 and begin a fraction of training between 0 and 1.')
        self.begin = begin
        self.part = dict(regularization_weight=weight, regularization_begin=begin)
        self.loss = WeightRegularizationLoss(weight)
        self._handle = None

    def before_train(self, runner: Runner) -> None:
        self.schedule(runner)  # which refuses weights that add up to more than 1

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        weight = self.schedule(runner).regularization(runner.iter)
        if bool(weight) == (self._handle is not None):
            return
        self._set_weight(runner, weight)
        if weight:
            runner.logger.info(
                f'weight regularization of {len(latent_weights(model_of(runner)))} binary layers '
                f'begins at iteration {runner.iter + 1}')

    def after_train(self, runner: Runner) -> None:
        self._set_weight(runner, 0.0)

    def _set_weight(self, runner: Runner, weight: float) -> None:
        model = model_of(runner)
        if self._handle is not None:
            self._handle.remove()
        self._handle = model.register_forward_hook(
            self._add_loss, with_kwargs=True) if weight else None
        if isinstance(model, TaughtMixin):
            model.regularization_weight = weight

    def _add_loss(self, model, args, kwargs, output):
        mode = kwargs.get('mode', args[2] if len(args) > 2 else None)
        if mode == 'loss':
            output['loss_weight_regularization'] = self.loss(model)
        return output
