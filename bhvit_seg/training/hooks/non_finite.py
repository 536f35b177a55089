"""Stop a training at the first non-finite loss and report its origin."""

import functools

import torch
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.training.runner import model_of


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Raise a UserError naming iteration, loss terms and first bad layer, before the update."""

    def before_train(self, runner) -> None:
        self._handle = model_of(runner).register_forward_hook(
            functools.partial(self._check, runner), with_kwargs=True)

    def after_train(self, runner) -> None:
        self._handle.remove()

    def _check(self, runner, model: nn.Module, args: tuple, kwargs: dict, losses) -> None:
        if kwargs.get('mode') != 'loss':
            return
        terms = {}
        for name, value in losses.items():
            if 'loss' in name:  # a tensor or a list of tensors
                values = value if isinstance(value, (list, tuple)) else [value]
                terms[name] = sum(item.detach().float().mean() for item in values)
        if torch.stack([*terms.values()]).isfinite().all():
            return
        self._handle.remove()
        values = ', '.join(f'{name} = {value.item():.4g}' for name, value in terms.items())
        raise UserError(
            f'the loss is not finite at iteration {runner.iter + 1} ({values}): '
            f'{first_non_finite(model, args, kwargs)}; resume from the last checkpoint with a '
            'lower learning rate or optim_wrapper.clip_grad, and without AMP if it is on')


@torch.no_grad()
def first_non_finite(model: nn.Module, args: tuple, kwargs: dict) -> str:
    """Name the first non-finite input, parameter, or output of a module without children."""
    if any(map(is_non_finite, (*args, *kwargs.values()))):
        return 'the input images already hold such values'
    for name, parameter in model.named_parameters():
        if is_non_finite(parameter):
            return f'the last update left such values in {name}'
    found: list[str] = []

    def note(name: str, module: nn.Module, args, output) -> None:
        if is_non_finite(output):
            found.append(f'{name} ({type(module).__name__})')

    for name, module in model.named_modules():
        if not any(module.children()):
            module.register_forward_hook(functools.partial(note, name))
    model(*args, **kwargs)
    if found:
        return f'the first layer with such an output is {found[0]}'
    return 'all layers have finite outputs, so it arose in the loss itself'


def is_non_finite(value) -> bool:
    return isinstance(value, torch.Tensor) and not value.isfinite().all()
