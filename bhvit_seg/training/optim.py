"""Parameter groups of latent weights, which act by their sign alone: decay flips it at 0 without
changing the size of the function; and training in bfloat16 on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn
from torch.optim import Optimizer

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import latent_weights


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LatentWeightOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """``DefaultOptimWrapperConstructor`` with two more settings, for latent weights.

    Parameters of equal settings share a group; latent weights never share theirs with others.

    Args:
        optim_wrapper_cfg: As in mmengine.
        paramwise_cfg: As in mmengine, without effect on latent weights, and ``latent_lr_mult`` (1)
            and ``latent_decay_mult`` (0), factors of their learning rate and weight decay.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        settings = {'latent_lr_mult': 1.0, 'latent_decay_mult': 0.0, **(paramwise_cfg or {})}
        for name in ('latent_lr_mult', 'latent_decay_mult'):
            if settings[name] < 0:
                raise UserError(f'optim_wrapper.paramwise_cfg.{name} is {settings[name]}: it must '
                                'not be negative')
        super().__init__(optim_wrapper_cfg, settings)

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        super().add_params(params, module, prefix, **kwargs)
        if prefix:
            return
        latent = {id(weight) for weight in latent_weights(module).values()}
        groups: dict[tuple, dict] = {}
        for single in params:
            parameter, = single['params']
            if id(parameter) in latent:
                single = {'params': [parameter]}
                if self.base_lr is not None:
                    single['lr'] = self.base_lr * self.paramwise_cfg['latent_lr_mult']
                if self.base_wd is not None:
                    single['weight_decay'] = self.base_wd * self.paramwise_cfg['latent_decay_mult']
            settings = [(name, single[name]) for name in sorted(single) if name != 'params']
            key = (id(parameter) in latent, repr(settings))
            groups.setdefault(key, {**single, 'params': []})['params'].append(parameter)
        # Loggers show the learning rate of the first group.
        params[:] = [groups[key] for key in sorted(groups, key=lambda key: key[0])]


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """``OptimWrapper`` that autocasts to bfloat16 on a CPU, where mmengine's ``AmpOptimWrapper``
    refuses to train; on a GPU it changes nothing.

    Products of ±1 are exact and summed in float32; a result is rounded to 8 significant bits.
    bfloat16 has float32's range, so the loss needs no scaling.
    """

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def latent_groups(optimizer: Optimizer, model: nn.Module) -> list[dict]:
    """Return the groups of an optimizer that hold the latent weights of a model, and no others."""
    latent = {id(weight) for weight in latent_weights(model).values()}
    groups = [group for group in optimizer.param_groups
              if not latent.isdisjoint(map(id, group['params']))]
    if any(id(parameter) not in latent for group in groups for parameter in group['params']):
        raise UserError(
            'latent weights share a parameter group with others, so they cannot have a weight '
            'decay of their own: set optim_wrapper.constructor to '
            'LatentWeightOptimWrapperConstructor')
    return groups
