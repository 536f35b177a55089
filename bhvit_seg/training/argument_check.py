"""Misspelt arguments in a config, told before anything is built and logged."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Sequence

import mmengine.registry
from mmengine.config import Config
from torch.utils.data import DataLoader

from bhvit_seg.errors import shortened, similar_to

# The registry of the parts below a key; '' where they are not built from a registry.
REGISTRIES = {
    'model': 'MODELS', 'train_cfg': 'LOOPS', 'val_cfg': 'LOOPS', 'test_cfg': 'LOOPS',
    'param_scheduler': 'PARAM_SCHEDULERS', 'optim_wrapper': 'OPTIM_WRAPPERS',
    'optimizer': 'OPTIMIZERS', 'default_hooks': 'HOOKS', 'custom_hooks': 'HOOKS',
    'val_evaluator': 'METRICS', 'test_evaluator': 'METRICS', 'dataset': 'DATASETS',
    'pipeline': 'TRANSFORMS', 'sampler': 'DATA_SAMPLERS', 'batch_sampler': 'DATA_SAMPLERS',
    'collate_fn': '', 'worker_init_fn': ''}
# What mmengine takes from a part before it builds the rest, by registry.
TAKEN = {'OPTIM_WRAPPERS': ('constructor', 'paramwise_cfg'), 'HOOKS': ('priority',),
         'PARAM_SCHEDULERS': ('convert_to_iter_based',),
         'DATALOADERS': ('num_batch_per_epoch', 'disable_subprocess_warning')}
# What it adds to a part.
ADDED = {'self', 'runner', 'dataloader', 'optimizer', 'params', 'param_name'}
CLOSE = 0.85  # as difflib measures it, for classes that pass on what they do not know


def misspelt_arguments(cfg: Config, names: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each argument, in these parts of a config, that its class lacks."""
    for name in names:
        registry = 'DATALOADERS' if name.endswith('_dataloader') else REGISTRIES[name]
        yield from _search(cfg.get(name), name, registry, cfg.get('default_scope') or 'mmseg')


def _search(part: object, path: str, registry: str, scope: str) -> Iterator[str]:
    if isinstance(part, (list, tuple)):
        for index, each in enumerate(part):
            yield from _search(each, f'{path}.{index}', registry, scope)
    if not isinstance(part, dict):
        return
    kind = _find_class(part, registry, scope)
    if kind is not None:
        known, exact = _arguments(kind)
        known.update(TAKEN.get(registry, ()))
        for name in part:
            if name not in known and name not in ('type', '_scope_') and (
                    exact or difflib.get_close_matches(name, known, 1, CLOSE)):
                yield (f'{path}.{name}: {kind.__name__} has no argument {name}'
                       f'{similar_to(name, known)}; it has {shortened(sorted(known - ADDED), 30)}')
    for name, each in part.items():
        # Builders of layers have arguments of their own.
        if not str(name).endswith(('_cfg', '_cfgs')):
            yield from _search(
                each, f'{path}.{name}', REGISTRIES.get(name, '' if registry == 'DATALOADERS'
                                                       else registry), scope)


def _find_class(part: dict, registry: str, scope: str) -> type | None:
    """Return the class of a part, or None where it is not known."""
    if registry == 'DATALOADERS':
        return DataLoader
    kind = part.get('type')
    if isinstance(kind, str) and registry:
        root = getattr(mmengine.registry, registry)
        with root.switch_scope_and_registry(part.get('_scope_', scope)) as names:
            kind = names.get(kind)
    return kind if inspect.isclass(kind) else None


def _arguments(kind: type) -> tuple[set[str], bool]:
    """Return the arguments of a class, with those of the bases that it passes others on to, and
    whether it can have no others."""
    known: set[str] = set()
    makers = [vars(base)['__init__'] for base in kind.__mro__ if '__init__' in vars(base)]
    for number, maker in enumerate(makers):
        parameters = inspect.signature(maker).parameters.values()
        known.update(each.name for each in parameters if each.kind not in (
            each.VAR_POSITIONAL, each.VAR_KEYWORD))
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return known, number == 0
    return known, False
