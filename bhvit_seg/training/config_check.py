"""What is wrong with a config as a whole, found before anything is built from it.

One function over the resolved config, for training, testing and ``bhvit-seg check-dataset``. Each
setting is valid by itself; the faults are in what two of them mean together, and would otherwise
show as a traceback from a library, or as hours of training for nothing.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
from mmengine.config import Config

from bhvit_seg.datasets.checks import check_from_config
from bhvit_seg.datasets.report import DatasetReport
from bhvit_seg.errors import UserError
from bhvit_seg.training.config import IOU_METRICS, dataset_nodes, listed, type_name

# Losses that compare whole maps and so have no value for each pixel.
MAP_LOSSES = ('CLDiceLoss', 'DiceLoss', 'HuasdorffDisstanceLoss', 'LovaszLoss', 'TverskyLoss')
BACKEND_PACKAGES = {
    'AimVisBackend': 'aim', 'ClearMLVisBackend': 'clearml', 'DVCLiveVisBackend': 'dvclive',
    'MLflowVisBackend': 'mlflow', 'NeptuneVisBackend': 'neptune',
    'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb'}
SCORES = ('aAcc', 'mIoU', 'mAcc', 'mFscore', 'mPrecision', 'mRecall', 'mDice')
# Schedulers that end at a value of their own; what follows them trains with it.
DECAYING = ('CosineAnnealing', 'CosineRestart', 'OneCycle', 'Poly')


def check_split(cfg: Config, split: str = 'train', progress: bool = True) -> DatasetReport:
    """Check the config and every file of one of its data sets, see :func:`check_from_config`."""
    report = check_from_config(cfg, split, progress=progress)
    problems, warnings = check_config(cfg, split)
    report.problems[:0] = problems
    report.warnings[:0] = warnings
    return report


def require_sound(cfg: Config, split: str) -> list[str]:
    """Return the warnings about a config.

    Raises:
        UserError: It has a problem; the sentence gives the first and the number of others.
    """
    problems, warnings = check_config(cfg, split)
    if problems:
        others = len(problems) - 1
        raise UserError(problems[0] + (f' ({others} more problem(s))' if others else ''))
    return warnings


def check_config(cfg: Config, split: str = 'train') -> tuple[list[str], list[str]]:
    """Return what makes a config useless for training or testing, and what is suspicious.

    Args:
        cfg: The config with all its overrides.
        split: 'train' for training with its validation, 'val' or 'test' for scoring alone.

    Returns:
        Problems and warnings, one sentence each.
    """
    model = cfg.get('model') or {}
    problems = [*head_problems(model, split == 'train'), *window_problems(model)]
    warnings: list[str] = []
    problems += backend_problems(cfg)
    if split == 'train' and cfg.get('train_cfg'):  # a part from _base_ has data alone
        lengths = list(length_problems(cfg))
        problems += [*lengths, *validation_problems(cfg), *device_problems(cfg),
                     *unlabelled_problems(cfg)]
        warnings += [*favoured_warnings(cfg), *(() if lengths else schedule_warnings(cfg))]
    return problems, warnings


def heads_of(model: Mapping) -> Iterator[tuple[str, Mapping]]:
    """Yield the heads of a segmentor's config with the path to each."""
    for name in ('decode_head', 'auxiliary_head'):
        yield from listed(model.get(name), f'model.{name}')


def head_problems(model: Mapping, training: bool) -> Iterator[str]:
    """Classes, channels, losses and samplers of heads that do not fit each other."""
    for path, head in heads_of(model):
        classes = head.get('num_classes')
        if classes is None:
            continue
        channels = head.get('out_channels') or classes
        if not isinstance(classes, int) or classes < 1:
            yield f'{path}.num_classes is {classes!r}: expected the number of classes, from 2'
            continue
        if channels != classes and (channels, classes) != (1, 2):
            yield (f'{path}.out_channels is {channels!r} for {classes} classes: leave it out, or '
                   'set it to 1 for two classes and a loss with use_sigmoid=True')
        if classes == 1:
            yield (f'{path}.num_classes is 1: a network that knows one class has nothing to tell '
                   'it from, learns nothing and scores 100 %; name the background as a class '
                   "(metainfo=dict(classes=('background', ...)), num_classes=2)")
        if training:
            yield from loss_problems(path, head, classes, channels)


def loss_problems(path: str, head: Mapping, classes: int, channels: int) -> Iterator[str]:
    losses = list(listed(head.get('loss_decode', {}), f'{path}.loss_decode'))
    if not losses:
        yield (f'{path}.loss_decode is {head["loss_decode"]!r}: expected a dict, or a list of '
               "dicts, such as dict(type='WeightedCrossEntropyLoss')")
    for name, loss in losses:
        if 'loss' not in loss.get('loss_name', 'loss'):
            yield (f'{name}.loss_name is {loss["loss_name"]!r}, and only what has "loss" in its '
                   f'name is trained on: set it to loss_{loss["loss_name"]}')
        kind = type_name(loss)
        weights = loss.get('class_weight')
        softmax = kind == 'WeightedCrossEntropyLoss'
        expected = classes if softmax else channels
        if not (weights is None or isinstance(weights, str) or are_weights(weights)):
            yield (f'{name}.class_weight is {weights!r}: expected one number for each class, none '
                   'of them negative and not all 0, or None')
        elif isinstance(weights, (list, tuple)) and len(weights) != expected:
            yield (f'{name}.class_weight has {len(weights)} values for {expected} classes: give '
                   f'one for each, such as `bhvit-seg check-dataset` prints, or {name}.'
                   'class_weight=None')
        if kind == 'CrossEntropyLoss' and channels == 1 and not (
                loss.get('use_sigmoid') or loss.get('use_mask')):
            yield (f'{name} is a softmax over {path}.out_channels=1, which is always 1: set '
                   f'{name}.use_sigmoid=True, or leave out_channels out')
    sampler = head.get('sampler')
    if not sampler or type_name(sampler) != 'OHEMPixelSampler':
        return
    if sampler.get('thresh') is None:
        for name, loss in losses:
            if type_name(loss) in MAP_LOSSES:
                yield (f'{path}.sampler (OHEMPixelSampler) without thresh picks pixels by their '
                       f'loss, and {name} ({type_name(loss)}) has none for each pixel: set '
                       f'{path}.sampler.thresh, such as 0.7')
    elif channels == 1:
        yield (f'{path}.sampler.thresh is {sampler["thresh"]}, a probability of a softmax, and '
               f'{path}.out_channels is 1: leave out_channels out, or the sampler')


def are_weights(values: Any) -> bool:
    """Tell whether values are numbers that losses may be weighted with."""
    return isinstance(values, (list, tuple)) and all(
        isinstance(value, (int, float)) and 0 <= value < math.inf for value in values
    ) and (not values or any(values))


def favoured_warnings(cfg: Config) -> Iterator[str]:
    """Classes that crops are to favour and that do not exist."""
    heads = heads_of(cfg.get('model') or {})
    classes = max((head.get('num_classes') or 0 for _, head in heads), default=0)
    for node in dataset_nodes(cfg.get('train_dataloader'), 'favoured_classes'):
        absent = [label for label in node['favoured_classes'] if label >= classes > 0]
        if absent:
            yield (f'favoured_classes of {type_name(node)} names {absent[0]}, but classes are '
                   f'numbered 0 to {classes - 1}: no crop can favour it')


def unlabelled_problems(cfg: Config) -> Iterator[str]:
    """Images or pixels without labels where nothing labels them, or in no fixed share."""
    mixed = list(dataset_nodes(cfg.get('train_dataloader'), 'unlabelled'))
    kept = [node for node in dataset_nodes(cfg.get('train_dataloader'), 'keep_unlabelled')
            if node['keep_unlabelled']]
    if (mixed or kept) and 'model' in cfg and not cfg.model.get('teacher'):
        yield (f'the {type_name((mixed or kept)[0])} of train_dataloader brings ground without '
               f'labels, and the {type_name(cfg.model)} has no teacher to label it: set '
               'model.type to DistillationSegmentor with a model.teacher, or leave it out')
    loop = type_name(cfg.get('train_cfg') or {})
    if mixed and loop != 'ResumableTrainLoop':
        yield (f'train_cfg.type is {loop}, which does not keep the share of images without labels '
               'in each batch: set it to ResumableTrainLoop')


def window_problems(model: Mapping) -> Iterator[str]:
    """Windows of a prediction that are missing, or that leave pixels out."""
    test_cfg = model.get('test_cfg') or {}
    mode = test_cfg.get('mode', 'whole')
    if mode not in ('whole', 'slide'):
        yield f"model.test_cfg.mode is {mode!r}: expected 'whole' or 'slide'"
    if mode != 'slide':
        return
    sides = []
    for name in ('crop_size', 'stride'):
        value = test_cfg.get(name)
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(
                isinstance(side, int) and side > 0 for side in value):
            sides.append(value)
        else:
            yield (f"model.test_cfg.{name} is {value!r}, and mode='slide' expects a height and a "
                   f'width in pixels, such as {name}=(448, 448)')
    if len(sides) == 2 and any(step > side for side, step in zip(*sides)):
        yield (f'model.test_cfg.stride is {tuple(sides[1])}, larger than crop_size='
               f'{tuple(sides[0])}: pixels between the windows would not be predicted; give a '
               'stride of at most the crop size')


def backend_problems(cfg: Config) -> Iterator[str]:
    """Where logs go to by packages that are not installed."""
    for path, backend in listed((cfg.get('visualizer') or {}).get('vis_backends'),
                                'visualizer.vis_backends'):
        package = BACKEND_PACKAGES.get(type_name(backend))
        if package and importlib.util.find_spec(package) is None:
            yield (f'{path} is {type_name(backend)}, which needs {package}, and that is not '
                   f'installed: pip install {package}, or leave the backend out')


def length_problems(cfg: Config) -> Iterator[str]:
    """Lengths and intervals that are no numbers of iterations, and schedules that are none."""
    length = cfg.train_cfg.get('max_iters')
    counts = {f'train_cfg.{name}': cfg.train_cfg[name] for name in ('max_iters', 'val_interval')
              if cfg.train_cfg.get(name) is not None}
    for path, scheduler in schedulers_of(cfg.get('param_scheduler')):
        counts.update({f'{path}.{name}': scheduler[name] for name in ('end', 'T_max', 'total_steps')
                       if scheduler.get(name) is not None})
        steps = scheduler.get('total_steps')
        if isinstance(steps, int) and isinstance(length, int) and 0 < steps < length and (
                not scheduler.get('by_epoch', True)):
            yield (f'{path}.total_steps is {steps} and train_cfg.max_iters {length}: '
                   f'{type_name(scheduler)} refuses further steps; set {path}.total_steps='
                   f'{length}')
    loader = cfg.get('train_dataloader') or {}
    if type_name(cfg.train_cfg) == 'EpochBasedTrainLoop' and (
            type_name(loader.get('sampler')) == 'InfiniteSampler'):
        yield ('train_cfg.type is EpochBasedTrainLoop, and the InfiniteSampler of '
               'train_dataloader.sampler never ends an epoch: set train_dataloader.sampler.type='
               'DefaultSampler')
    for name, count in counts.items():
        if not isinstance(count, (int, float)) or not (count == math.inf or (
                count > 0 and count == int(count))):
            yield f'{name} is {count!r}: expected a whole number from 1'


def validation_problems(cfg: Config) -> Iterator[str]:
    """A validation that is described in part, or scores nothing that a best checkpoint goes by."""
    parts = {name: cfg.get(name) for name in ('val_dataloader', 'val_cfg', 'val_evaluator')}
    missing = [name for name, part in parts.items() if not part]
    if 0 < len(missing) < 3:
        given = [name for name in parts if name not in missing]
        yield (f'the config has {" and ".join(given)} but no {" and no ".join(missing)}: give all '
               'three, or set all three to None to train without validation')
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    wanted = checkpoint.get('save_best')
    if missing or not wanted:
        return
    metrics = [metric for _, metric in listed(cfg.val_evaluator, '')]
    if any(type_name(metric) not in IOU_METRICS for metric in metrics):
        return
    scores = [f'{metric["prefix"]}/{name}' if metric.get('prefix') else name
              for metric in metrics if not metric.get('format_only') for name in SCORES]
    if not scores:
        yield (f'val_evaluator.format_only is True, so that default_hooks.checkpoint.save_best='
               f'{wanted!r} has no score to go by: set one of them to None')
        return
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in (*scores, 'auto'):
            yield (f'default_hooks.checkpoint.save_best is {name!r}, which val_evaluator does not '
                   f'compute: expected one of {", ".join(scores)}')


def device_problems(cfg: Config) -> Iterator[str]:
    """Mixed precision without a GPU."""
    if type_name(cfg.get('optim_wrapper') or {}) == 'AmpOptimWrapper' and not (
            torch.cuda.is_available()):
        yield ('optim_wrapper.type is AmpOptimWrapper, which needs a GPU, and torch finds none: '
               'set optim_wrapper.type=OptimWrapper to train on the CPU')


def schedulers_of(config: Any, path: str = 'param_scheduler') -> Iterator[tuple[str, Mapping]]:
    """Yield the schedulers of a config, one or many, of one optimizer or several."""
    if isinstance(config, Mapping) and 'type' in config:
        yield path, config
    elif isinstance(config, Mapping):
        for name, part in config.items():
            yield from schedulers_of(part, f'{path}.{name}')
    elif isinstance(config, (list, tuple)):
        for number, part in enumerate(config):
            yield from schedulers_of(part, f'{path}.{number}')


def schedule_warnings(cfg: Config) -> Iterator[str]:
    """Schedules that end elsewhere than training does, or never begin."""
    length = (cfg.get('train_cfg') or {}).get('max_iters')
    if not length:
        return
    counted = []
    for path, scheduler in schedulers_of(cfg.get('param_scheduler')):
        if scheduler.get('convert_to_iter_based'):
            continue
        if scheduler.get('by_epoch', True):
            yield (f'{path} ({type_name(scheduler)}) counts epochs and training counts iterations '
                   f'(train_cfg.max_iters={length}), so it has no effect: set '
                   f'{path}.by_epoch=False')
        elif type_name(scheduler).startswith(DECAYING):
            counted.append((scheduled_end(scheduler, length), path, scheduler))
    if not counted:
        return
    end, path, scheduler = max(counted, key=lambda item: item[0])
    if end == length:
        return
    change = f'{path}.end={length}'
    if 'T_max' in scheduler:
        change += f' and {path}.T_max={length - scheduler.get("begin", 0)}'
    if 'periods' in scheduler:
        change += f' and {path}.periods to fill it'
    effect = (f'the last {length - end} iterations do not follow it (the learning rate stays '
              'where it ended, often at 0, or rises again)' if end < length else
              'training stops before the learning rate has come down')
    yield (f'{path} ({type_name(scheduler)}) ends at iteration {end} and training at '
           f'train_cfg.max_iters={length}: {effect}; set {change}')


def scheduled_end(scheduler: Mapping, length: int) -> int:
    """The iteration at which a schedule has come to its end value."""
    begin = scheduler.get('begin', 0)
    end = scheduler.get('end', math.inf)
    span = scheduler.get('T_max') or scheduler.get('total_steps') or sum(
        scheduler.get('periods') or ())
    return min(end, begin + span) if span else min(end, max(length, begin))


def resumed_differences(cfg: Config, checkpoint: Mapping) -> Iterator[str]:
    """Settings of schedules and the optimizer for which a checkpoint has other values.

    Resuming goes on with those of the checkpoint.

    Args:
        cfg: The config.
        checkpoint: The checkpoint that training goes on from.
    """
    given = list(schedulers_of(cfg.get('param_scheduler')))
    states = checkpoint.get('param_schedulers') or []
    if isinstance(states, Mapping):
        states = [state for group in states.values() for state in group]
    differences = []
    if len(given) != len(states):
        differences.append(f'{len(states)} schedules there, {len(given)} in param_scheduler here')
    for (path, scheduler), state in zip(given, states):
        if not scheduler.get('convert_to_iter_based'):
            differences += [
                f'{path}.{name} is {state[name]} there, {value} here'
                for name, value in scheduler.items()
                if isinstance(value, (int, float)) and state.get(name, value) != value]
    groups = (checkpoint.get('optimizer') or {}).get('param_groups') or []
    rate = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    rates = {group.get('initial_lr', group.get('lr')) for group in groups}
    if rate is not None and rates and rate not in rates:
        differences.append(f'optim_wrapper.optimizer.lr is {max(rates):g} there, {rate:g} here')
    if differences:
        yield ('resuming goes on with the schedule of the checkpoint, which differs from the '
               f"config's ({'; '.join(differences)}); to train by the config's, begin a new "
               'training from these weights with --cfg-options load_from=CHECKPOINT')
