"""Re-estimation of BatchNorm statistics at the end of training.

Running averages lag behind weights whose signs flip; an average over many batches does not.
"""

import itertools
from collections.abc import Iterable, Iterator

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import set_binary_weights
from bhvit_seg.training.runner import model_of


@HOOKS.register_module()
class BatchNormReestimationHook(Hook):
    """Estimate the statistics of all BatchNorm layers again after the last training step.

    It uses the ``num_batches`` batches per process that training would have seen next, without
    dropout and drop path, with binary weights, and those of ``EMAHook`` if there is one.
    """

    priority = 'LOW'  # after averages of weights, before checkpoints

    def __init__(self, num_batches: int = 100) -> None:
        if not isinstance(num_batches, int) or num_batches < 1:
            raise UserError(f'num_batches of BatchNormReestimationHook is {num_batches!r}: give a '
                            'number of batches, 1 or more')
        self.num_batches = num_batches

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        if not self.is_last_train_iter(runner):
            return
        model = model_of(runner)
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        source = averages[-1].ema_model.module if averages else model
        set_binary_weights(source, True)
        layers = reestimate(source, following_batches(runner, self.num_batches))
        if averages:
            # Averages of parameters alone are validated with the buffers of the model itself.
            estimated = dict(source.named_modules())
            for name, layer in batch_norms(model).items():
                layer.load_state_dict(dict(estimated[name].named_buffers()), strict=False)
        runner.logger.info(f'statistics of {layers} BatchNorm layers estimated again from '
                           f'{self.num_batches} batches')


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the layers of a model that learn running statistics in training mode, by name."""
    return {name: layer for name, layer in model.named_modules()
            if isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.training}


def following_batches(runner: Runner, number: int) -> Iterator:
    """Return batches of this process that follow the iteration being trained."""
    batches = getattr(runner.train_loop, 'dataloader_iterator', None)
    if batches is None:  # training counts epochs
        batches = itertools.chain.from_iterable(itertools.repeat(runner.train_dataloader))
    return itertools.islice(batches, number)


@torch.no_grad()
def reestimate(model: BaseModel, batches: Iterable) -> int:
    """Replace running statistics by their averages over batches; return the number of such layers.

    Everything else computes as in evaluation. Layers that the batches do not reach, such as those
    of auxiliary heads, and layers in evaluation mode (``norm_eval``) are unchanged.
    """
    mode = model.training
    layers = batch_norms(model.train()).values()
    before = [(layer.momentum, {name: value.clone() for name, value in layer.named_buffers()})
              for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average of all batches
        layer.train()
    for batch in batches:
        model(**model.data_preprocessor(batch, True), mode='tensor')
    reached = 0
    for layer, (layer.momentum, buffers) in zip(layers, before):
        if layer.num_batches_tracked:
            reached += 1
            all_reduce(layer.running_mean, 'mean')
            all_reduce(layer.running_var, 'mean')
        else:
            layer.load_state_dict(buffers, strict=False)
    model.train(mode)
    return reached
