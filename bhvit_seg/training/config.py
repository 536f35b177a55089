"""Reading configs: overrides, the data root, and messages about mistakes in them."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import nn

from bhvit_seg.errors import UserError, find_user_error, first_line
from bhvit_seg.shipped import find_config

# Top-level settings the runner or the tools read even where no config mentions them.
OPTIONAL_SETTINGS = {
    *inspect.signature(Runner.__init__).parameters, 'activation_checkpointing', 'compile',
    'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg',
    'sync_bn', 'tta_model', 'tta_pipeline', 'vis_backends',
}
SPLITS = ('train', 'val', 'test')
IOU_METRICS = ('IoUMetric', 'PerClassMetric')
STEPS = ('train_step', 'val_step', 'test_step')
BUILDERS = ('from_cfg', 'build_optim_wrapper', 'build_param_scheduler')
RUNNER = inspect.getfile(Runner)
PACKAGE = Path(__file__).resolve().parents[1]


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` texts as a dict; values are read as mmengine's tools read them."""
    for text in texts:
        if '=' not in text:
            raise UserError(f'--cfg-options expects KEY=VALUE, not {text!r}')
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    try:
        return parser.parse_args(['--options', *texts]).options
    except (AssertionError, ValueError) as error:
        raise UserError(f'--cfg-options {" ".join(texts)} cannot be read: '
                        f'{first_line(error)}') from error


def load_config(path: str | Path, cfg_options: dict[str, Any] | None = None,
                data_root: str | Path | None = None) -> Config:
    """Read a config: a file, or the name of one that comes with the package.

    Args:
        cfg_options: Values that override the config's, by dotted key.
        data_root: Folder of all its data sets.

    Raises:
        UserError: The file is missing or broken, a key is unknown, the folder is missing.
    """
    # as custom_imports of a config does: registers our classes, whatever the config imports
    import_modules_from_strings('bhvit_seg.modules')

    path = find_config(path)
    try:
        cfg = Config.fromfile(str(path))
    except Exception as error:
        if find_user_error(error):
            raise
        raise UserError(f'the config {path} cannot be read: {type(error).__name__}: '
                        f'{first_line(error)}') from error
    if cfg_options:
        check_options(cfg, cfg_options)
        cfg.merge_from_dict(cfg_options)
    if data_root is not None:
        set_data_root(cfg, data_root)
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict) and loader.get('num_workers', 0) == 0:
            # Without worker processes torch refuses their options.
            for name in ('persistent_workers', 'prefetch_factor', 'multiprocessing_context'):
                loader.pop(name, None)
    return cfg


def check_options(cfg: Config, options: dict[str, Any]) -> None:
    """Refuse dotted keys that lead to no setting; the last part of several may be new, for the
    class of that part to judge."""
    for key in set(options) - OPTIONAL_SETTINGS:
        node: Any = cfg._cfg_dict
        names = key.split('.')
        for depth, name in enumerate(names, 1):
            if isinstance(node, (list, tuple)) and name.isdigit() and int(name) < len(node):
                node = node[int(name)]
            elif isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, dict) and depth == len(names) > 1:
                break
            else:
                size = f' (a list of {len(node)}, from 0)' if isinstance(node, list) else ''
                raise UserError(f'unknown option {key}: the config has no '
                                f'{".".join(names[:depth])}{size}; new settings belong in a '
                                'config file')


def listed(config: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Yield the parts of a config that have a type, each with its path."""
    if isinstance(config, dict) and 'type' in config:
        yield path, config
    elif isinstance(config, (dict, list, tuple)):
        for name, part in config.items() if isinstance(config, dict) else enumerate(config):
            yield from listed(part, f'{path}.{name}')


def type_name(config: dict) -> str:
    """Return the name of the class that a config names, without the registry's scope."""
    kind = config.get('type', '') if isinstance(config, dict) else ''
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def score_classes(cfg: Config, split: str) -> None:
    """Replace mmseg's ``IoUMetric``, which leaves the F1 of a class that is never predicted out of
    the mean, by ``PerClassMetric`` in the evaluator of a split."""
    for _, evaluator in listed(cfg.get(f'{split}_evaluator'), ''):
        if type_name(evaluator) == 'IoUMetric':
            evaluator['type'] = 'mmseg.PerClassMetric'


def dataset_nodes(node: Any, key: str) -> Iterator[dict]:
    """Yield every dict below ``node``, itself included, that holds ``key``."""
    if isinstance(node, dict):
        if key in node:
            yield node
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for value in node:
        yield from dataset_nodes(value, key)


def set_data_root(cfg: Config, data_root: str | Path) -> None:
    """Set ``data_root`` wherever a dataset of the config has one."""
    if not Path(data_root).is_dir():
        raise UserError(f'no folder at {data_root} (--data-root): give the folder that holds '
                        'the images and annotations')
    nodes = [node for split in SPLITS
             for node in dataset_nodes(cfg.get(f'{split}_dataloader'), 'data_root')]
    if not nodes:
        raise UserError('--data-root has nothing to set: no dataset of the config has a data_root')
    for node in nodes:
        node['data_root'] = str(data_root)
    if 'data_root' in cfg:
        cfg.data_root = str(data_root)


def require_settings(cfg: Config, path: str | Path, *names: str) -> None:
    missing = [name for name in names if not cfg.get(name)]
    if missing:
        raise UserError(f'the config {path} lacks {", ".join(missing)}: give one that describes a '
                        'whole experiment, not a part from _base_')


def require_segmentation(cfg: Config, path: str | Path) -> None:
    """Refuse a config of another package than mmseg, such as one for pre-training."""
    scope = cfg.get('default_scope', 'mmseg')
    if scope != 'mmseg':
        raise UserError(f'the config {path} is for {scope}, and segmenters alone are scored here: '
                        'a classifier is scored during its training, see the log')


def work_dir_of(cfg: Config, path: str | Path, work_dir: str | Path | None) -> str:
    """Return the argument, else the config's ``work_dir``, else ``work_dirs/<config name>``."""
    return str(work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(path).stem)


@contextlib.contextmanager
def explain_config_errors() -> Iterator[None]:
    """Raise a :class:`UserError` where a wrong config fails to build or run; all else passes."""
    try:
        yield
    except Exception as error:
        sentence = None if find_user_error(error) else config_fault(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def config_fault(error: Exception) -> str | None:
    """Return what an error says about the config, or None if the config is not its cause."""
    if isinstance(error, (OSError, ModuleNotFoundError, MemoryError)):
        return None
    message = ' '.join(str(error.args[0]).split()) if error.args else ''
    unknown = re.match(r'(\S+) is not in the (.+?) registry', message)
    if unknown:
        name, registry = unknown.groups()
        return (f'{name} in the config is not in the {registry} registry: check its spelling, '
                'and that custom_imports names the module that registers it')
    untyped = re.search(r'must contain the key "type", but got (.*)', message)
    if untyped:
        return f'a part of the config has no type and cannot be built: {untyped.group(1)}'
    calls = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if re.search(r'(unexpected keyword argument|missing \d+ required)', message) and any(
            frame.f_code.co_name.startswith('build') for frame in calls):
        return f'the config does not fit: {message}'
    last = calls[-1]
    if Path(last.f_code.co_filename).is_relative_to(PACKAGE):
        return None
    line = traceback.extract_tb(error.__traceback__)[-1].line
    reason = f'{type(error).__name__}: {message or line}'
    if any(frame.f_code.co_name in STEPS for frame in calls):
        modules = [frame.f_locals['self'] for frame in calls
                   if isinstance(frame.f_locals.get('self'), nn.Module)]
        if not modules:
            return None
        names = {module: name for name, module in modules[0].named_modules()}
        named = next((module for module in reversed(modules) if names.get(module)), modules[0])
        path = f'model.{names[named]}' if names[named] else 'model'
        return (f'{path} ({type(named).__name__}) fails on a batch of images: '
                f'{reason}; correct its settings in the config, or those of the parts around it')
    built = [frame.f_locals.get('cfg') for frame in calls
             if frame.f_code.co_name == 'build_from_cfg']
    if built:
        what = type_name(built[-1]) or repr(built[-1])
        return f'{what} cannot be built as the config describes it: {reason}'
    if any(frame.f_code.co_name in BUILDERS and frame.f_code.co_filename == RUNNER
           for frame in calls):
        return f'no training or test can be built from the config: {reason}'
    return None
