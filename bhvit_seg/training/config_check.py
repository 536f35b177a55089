"""Faults of a config, mostly in combinations of settings, found before building it."""

import math
import re
from collections.abc import Iterator, Mapping

import torch
from mmengine.config import Config

from bhvit_seg.datasets.checks import check_from_config
from bhvit_seg.datasets.report import DatasetReport
from bhvit_seg.errors import UserError, first_problem
from bhvit_seg.training.config import IOU_METRICS, dataset_nodes, listed, type_name

# Losses that compare whole maps and so have no value for each pixel.
MAP_LOSSES = ('CLDiceLoss', 'DiceLoss', 'HuasdorffDisstanceLoss', 'LovaszLoss', 'TverskyLoss')
SCORES = ('aAcc', 'mIoU', 'mAcc', 'mFscore', 'mPrecision', 'mRecall', 'mDice')
GROUPS_OF_SCORES = ('mIoU', 'mDice', 'mFscore')  # what mmseg's metric takes as iou_metrics
# Schedulers that end at a value of their own, which stays in effect after their end.
DECAYING = ('CosineAnnealing', 'CosineRestart', 'OneCycle', 'Poly')


def check_split(cfg: Config, split: str = 'train', progress: bool = True) -> DatasetReport:
    """Check the config and every file of one of its data sets, see :func:`check_from_config`."""
    report = check_from_config(cfg, split, progress=progress)
    problems, warnings = check_config(cfg, split)
    report.problems[:0] = problems
    report.warnings[:0] = warnings
    return report


def require_sound(cfg: Config, split: str) -> list[str]:
    """Return the warnings about a config; its problems are a UserError."""
    problems, warnings = check_config(cfg, split)
    if problems:
        raise UserError(first_problem(problems))
    return warnings


def check_config(cfg: Config, split: str = 'train') -> tuple[list[str], list[str]]:
    """Return problems that make a config useless, and warnings, one sentence each; ``split`` is
    'train' for training with its validation, 'val' or 'test' for scoring alone."""
    model = cfg.get('model') or {}
    scored = 'val' if split == 'train' else split
    problems = [*head_problems(model, split == 'train'), *window_problems(model),
                *metric_problems(cfg, f'{scored}_evaluator')]
    if split != 'train' or not cfg.get('train_cfg'):  # a part from _base_ has data alone
        return problems, []
    lengths = list(length_problems(cfg))
    problems += [*lengths, *validation_problems(cfg), *unlabelled_problems(cfg)]
    if type_name(cfg.get('optim_wrapper')) == 'AmpOptimWrapper' and not torch.cuda.is_available():
        problems.append('optim_wrapper.type is AmpOptimWrapper, which needs a GPU, and torch finds '
                        'none: set optim_wrapper.type=OptimWrapper to train on the CPU')
    return problems, [*favoured_warnings(cfg), *(() if lengths else schedule_warnings(cfg))]


def heads_of(model: Mapping) -> list[tuple[str, Mapping]]:
    return [item for name in ('decode_head', 'auxiliary_head')
            for item in listed(model.get(name), f'model.{name}')]


def head_problems(model: Mapping, training: bool) -> Iterator[str]:
    """Classes, channels, losses and samplers of heads that do not fit together."""
    for path, head in heads_of(model):
        classes = head.get('num_classes')
        if classes is None:
            continue
        channels = head.get('out_channels') or classes
        if not isinstance(classes, int) or classes < 1:
            yield f'{path}.num_classes is {classes!r}: expected the number of classes, from 2'
            continue
        if classes == 1:
            yield (f'{path}.num_classes is 1: a network that knows one class has nothing to tell '
                   'it from, learns nothing and scores 100 %; name the background as a class '
                   "(metainfo=dict(classes=('background', ...)), num_classes=2)")
        if training:
            yield from loss_problems(path, head, classes, channels)
    losses = [item for path, head in heads_of(model) if path.startswith('model.decode_head')
              for item in listed(head.get('loss_decode'), f'{path}.loss_decode')]
    # a teacher may be all that a network learns from
    if training and losses and not model.get('teacher') and all(
            loss.get('loss_weight', 1) == 0 for _, loss in losses):
        yield (f'{losses[0][0]}.loss_weight is 0, and model.decode_head has no other loss, so that '
               'nothing is learned: give it a positive weight, such as 1.0')


def loss_problems(path: str, head: Mapping, classes: int, channels: int) -> Iterator[str]:
    losses = list(listed(head.get('loss_decode', {'type': ''}), f'{path}.loss_decode'))
    if not losses:
        yield (f'{path}.loss_decode is {head["loss_decode"]!r}: expected a dict, or a list of '
               "dicts, such as dict(type='WeightedCrossEntropyLoss')")
    for name, loss in losses:
        kind, weights = type_name(loss), loss.get('class_weight')
        many = isinstance(weights, (list, tuple))
        expected = classes if kind == 'WeightedCrossEntropyLoss' else channels
        if 'loss' not in loss.get('loss_name', 'loss'):
            yield (f'{name}.loss_name is {loss["loss_name"]!r}, and only what has "loss" in its '
                   f'name is trained on: set it to loss_{loss["loss_name"]}')
        if not (weights is None or isinstance(weights, str) or many and all(
                isinstance(value, (int, float)) and 0 <= value < math.inf for value in weights
        ) and (any(weights) or not weights)):
            yield (f'{name}.class_weight is {weights!r}: expected one number for each class, none '
                   'of them negative and not all 0, or None')
        elif many and len(weights) != expected:
            yield (f'{name}.class_weight has {len(weights)} values for {expected} classes: give '
                   f'one for each, such as `bhvit-seg check-dataset` prints, or {name}.'
                   'class_weight=None')
        if kind == 'CrossEntropyLoss' and channels == 1 and not (
                loss.get('use_sigmoid') or loss.get('use_mask')):
            yield (f'{name} is a softmax over {path}.out_channels=1, which is always 1: set '
                   f'{name}.use_sigmoid=True, or leave out_channels out')
    sampler = head.get('sampler')
    if type_name(sampler) != 'OHEMPixelSampler':
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


def favoured_warnings(cfg: Config) -> Iterator[str]:
    """Classes that crops should favour but that do not exist."""
    heads = heads_of(cfg.get('model') or {})
    classes = max((head.get('num_classes') or 0 for _, head in heads), default=0)
    for node in dataset_nodes(cfg.get('train_dataloader'), 'favoured_classes'):
        absent = [label for label in node['favoured_classes'] if label >= classes > 0]
        if absent:
            yield (f'favoured_classes of {type_name(node)} names {absent[0]}, but classes are '
                   f'numbered 0 to {classes - 1}: no crop can favour it')


def unlabelled_problems(cfg: Config) -> Iterator[str]:
    """Unlabelled images or pixels without a teacher, or without a fixed share of the batch."""
    mixed = list(dataset_nodes(cfg.get('train_dataloader'), 'unlabelled'))
    kept = [node for node in dataset_nodes(cfg.get('train_dataloader'), 'keep_unlabelled')
            if node['keep_unlabelled']]
    if (mixed or kept) and 'model' in cfg and not cfg.model.get('teacher'):
        yield (f'the {type_name((mixed or kept)[0])} of train_dataloader brings ground without '
               f'labels, and the {type_name(cfg.model)} has no teacher to label it: set '
               'model.type to DistillationSegmentor with a model.teacher, or leave it out')
    loop = type_name(cfg.train_cfg)
    if mixed and loop != 'ResumableTrainLoop':
        yield (f'train_cfg.type is {loop}, which does not keep the share of images without labels '
               'in each batch: set it to ResumableTrainLoop')


def window_problems(model: Mapping) -> Iterator[str]:
    """Windows of a prediction that are missing or leave pixels out."""
    test_cfg = model.get('test_cfg') or {}
    mode = test_cfg.get('mode', 'whole')
    if mode not in ('whole', 'slide'):
        yield f"model.test_cfg.mode is {mode!r}: expected 'whole' or 'slide'"
    if mode != 'slide':
        return
    size, stride = test_cfg.get('crop_size'), test_cfg.get('stride')
    wrong = [(name, value) for name, value in (('crop_size', size), ('stride', stride))
             if not (isinstance(value, (list, tuple)) and len(value) == 2
                     and all(isinstance(side, int) and side > 0 for side in value))]
    for name, value in wrong:
        yield (f"model.test_cfg.{name} is {value!r}, and mode='slide' expects a height and a "
               f'width in pixels, such as {name}=(448, 448)')
    if not wrong and any(step > side for side, step in zip(size, stride)):
        yield (f'model.test_cfg.stride is {tuple(stride)}, larger than crop_size={tuple(size)}: '
               'pixels between the windows would not be predicted; give a stride of at most the '
               'crop size')


def metric_problems(cfg: Config, name: str) -> Iterator[str]:
    for path, metric in listed(cfg.get(name), name):
        asked = metric.get('iou_metrics') or ()
        for score in asked if isinstance(asked, (list, tuple)) else [asked]:
            if type_name(metric) in IOU_METRICS and score not in GROUPS_OF_SCORES:
                yield (f'{path}.iou_metrics has {score!r}: expected some of '
                       f'{", ".join(GROUPS_OF_SCORES)}')


def length_problems(cfg: Config) -> Iterator[str]:
    """Lengths that are not positive numbers of iterations, and schedules that end too early."""
    length = cfg.train_cfg.get('max_iters')
    counts = {f'train_cfg.{name}': cfg.train_cfg.get(name)
              for name in ('max_iters', 'val_interval')}
    for path, scheduler in listed(cfg.get('param_scheduler'), 'param_scheduler'):
        counts.update({f'{path}.{name}': scheduler.get(name)
                       for name in ('end', 'T_max', 'total_steps', 'step_size')})
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
        if count is not None and not (isinstance(count, (int, float)) and count > 0 and (
                count == math.inf or count == int(count))):
            yield f'{name} is {count!r}: expected a whole number from 1'


def validation_problems(cfg: Config) -> Iterator[str]:
    """A validation that is incomplete, or that lacks the score of the best checkpoint."""
    parts = ('val_dataloader', 'val_cfg', 'val_evaluator')
    given = [name for name in parts if cfg.get(name)]
    missing = [name for name in parts if name not in given]
    if given and missing:
        yield (f'the config has {" and ".join(given)} but no {" and no ".join(missing)}: give all '
               'three, or set all three to None to train without validation')
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    wanted = checkpoint.get('save_best')
    metrics = [metric for _, metric in listed(cfg.get('val_evaluator'), '')]
    if missing or not wanted or any(type_name(metric) not in IOU_METRICS for metric in metrics):
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


def schedule_warnings(cfg: Config) -> Iterator[str]:
    """Schedules that do not end with the training, or never begin."""
    length = cfg.train_cfg.get('max_iters')
    decaying = []
    for path, scheduler in listed(cfg.get('param_scheduler'), 'param_scheduler') if length else ():
        kind = type_name(scheduler)
        if scheduler.get('convert_to_iter_based'):
            continue
        if scheduler.get('by_epoch', True):
            yield (f'{path} ({kind}) counts epochs and training counts iterations '
                   f'(train_cfg.max_iters={length}), so it has no effect: set '
                   f'{path}.by_epoch=False')
        elif scheduler.get('begin', 0) >= length:
            yield (f'{path} ({kind}) begins at iteration {scheduler["begin"]} and training ends at '
                   f'train_cfg.max_iters={length}, so it has no effect: set {path}.begin below '
                   f'{length} and its end to fit, or leave it out')
        elif kind.startswith(DECAYING):
            decaying.append((scheduled_end(scheduler, length), path, scheduler))
        else:
            yield from unreached(path, scheduler, length)
    end, path, scheduler = max(decaying, key=lambda item: item[0], default=(length, '', {}))
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
    begin, end = scheduler.get('begin', 0), scheduler.get('end', math.inf)
    span = scheduler.get('T_max') or scheduler.get('total_steps') or sum(
        scheduler.get('periods') or ())
    return min(end, begin + span if span else max(length, begin))


def unreached(path: str, scheduler: Mapping, length: int) -> Iterator[str]:
    """A milestone of a schedule beyond the end of training."""
    kind, milestones = type_name(scheduler), scheduler.get('milestones')
    # A line without an end never rises; a constant factor without one is meant to stay.
    name, place = {
        'Linear': ('end', scheduler.get('end', math.inf)),
        'Constant': ('end', scheduler.get('end', 0)),
        'MultiStep': ('milestones', max(
            milestones if isinstance(milestones, (list, tuple)) else (), default=0)),
        'Step': ('step_size', scheduler.get('begin', 0) + scheduler.get('step_size', 0)),
    }.get(re.sub('(LR|Momentum|ParamScheduler)$', '', kind), ('', 0))
    if place > length:
        yield (f'{path}.{name} of {kind} is {scheduler.get(name, "not given")}, and training ends '
               f'at train_cfg.max_iters={length}, before the learning rate gets there: set '
               f'{path}.{name} to fit')


def resumed_differences(cfg: Config, checkpoint: Mapping) -> Iterator[str]:
    """Settings of schedules and optimizer that differ in a checkpoint, whose values will apply."""
    given = list(listed(cfg.get('param_scheduler'), 'param_scheduler'))
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
