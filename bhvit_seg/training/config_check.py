"""Faults of a config, mostly in combinations of settings, that nothing else reports in time."""

import math
from collections.abc import Iterator, Mapping

from mmengine.config import Config

from bhvit_seg.datasets.checks import check_from_config
from bhvit_seg.datasets.report import DatasetReport
from bhvit_seg.errors import UserError, first_problem
from bhvit_seg.training.argument_check import misspelt_arguments
from bhvit_seg.training.config import IOU_METRICS, dataset_nodes, listed, type_name

GROUPS_OF_SCORES = ('mIoU', 'mDice', 'mFscore')  # what mmseg's metric takes as iou_metrics
SCORES = ('aAcc', 'mIoU', 'mAcc', 'mFscore', 'mPrecision', 'mRecall', 'mDice')
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
    scoring = split if split != 'train' else 'val'
    parts = ['model', *(f'{split}_{part}' for part in ('dataloader', 'cfg')),
             'default_hooks', 'custom_hooks', f'{scoring}_evaluator']
    if split == 'train':
        parts += ['val_dataloader', 'val_cfg', 'optim_wrapper', 'param_scheduler']
    problems = [*misspelt_arguments(cfg, parts), *head_problems(model, split == 'train'),
                *window_problems(model), *metric_problems(cfg, f'{scoring}_evaluator')]
    if split != 'train' or not cfg.get('train_cfg'):  # a part from _base_ has data alone
        return problems, []
    lengths = list(length_problems(cfg))
    return ([*problems, *lengths, *score_problems(cfg), *unlabelled_problems(cfg)],
            [] if lengths else list(schedule_warnings(cfg)))


def head_problems(model: Mapping, training: bool) -> Iterator[str]:
    """Classes, channels and losses of heads that do not fit together."""
    all_losses = []
    for place in ('decode_head', 'auxiliary_head'):
        for path, head in listed(model.get(place), f'model.{place}'):
            classes = head.get('num_classes')
            if classes == 1:
                yield (f'{path}.num_classes is 1: a network that knows one class has nothing to '
                       'tell it from, learns nothing and scores 100 %; name the background as a '
                       "class (metainfo=dict(classes=('background', ...)), num_classes=2)")
            losses = list(listed(head.get('loss_decode'), f'{path}.loss_decode'))
            all_losses += losses if place == 'decode_head' else []
            if training and classes is not None:
                channels = head.get('out_channels') or classes
                for name, loss in losses:
                    yield from loss_problems(name, loss, path, classes, channels)
    # a teacher may be all that a network learns from
    if training and all_losses and not model.get('teacher') and all(
            loss.get('loss_weight', 1) == 0 for _, loss in all_losses):
        yield (f'{all_losses[0][0]}.loss_weight is 0, and model.decode_head has no other loss, so '
               'that nothing is learned: give it a positive weight, such as 1.0')


def loss_problems(name: str, loss: Mapping, path: str, classes: int, channels: int
                  ) -> Iterator[str]:
    kind, weights = type_name(loss), loss.get('class_weight')
    expected = classes if kind == 'WeightedCrossEntropyLoss' else channels
    if 'loss' not in loss.get('loss_name', 'loss'):
        yield (f'{name}.loss_name is {loss["loss_name"]!r}, and only what has "loss" in its name '
               f'is trained on: set it to loss_{loss["loss_name"]}')
    if isinstance(weights, (list, tuple)) and len(weights) != expected:
        yield (f'{name}.class_weight has {len(weights)} values for {expected} classes: give one '
               f'for each, such as `bhvit-seg check-dataset` prints, or {name}.class_weight=None')
    if kind == 'CrossEntropyLoss' and channels == 1 and not (
            loss.get('use_sigmoid') or loss.get('use_mask')):
        yield (f'{name} is a softmax over {path}.out_channels=1, which is always 1: set '
               f'{name}.use_sigmoid=True, or leave out_channels out')


def unlabelled_problems(cfg: Config) -> Iterator[str]:
    """Unlabelled images or pixels without a teacher, or without a fixed share of the batch."""
    loader = cfg.get('train_dataloader')
    mixed = list(dataset_nodes(loader, 'unlabelled'))
    unlabelled = [*mixed, *(
        node for node in dataset_nodes(loader, 'keep_unlabelled') if node['keep_unlabelled'])]
    if unlabelled and 'model' in cfg and not cfg.model.get('teacher'):
        yield (f'the {type_name(unlabelled[0])} of train_dataloader brings ground without labels, '
               f'and the {type_name(cfg.model)} has no teacher to label it: set model.type to '
               'DistillationSegmentor with a model.teacher, or leave it out')
    loop = type_name(cfg.train_cfg)
    if mixed and loop != 'ResumableTrainLoop':
        yield (f'train_cfg.type is {loop}, which does not keep the share of images without labels '
               'in each batch: set it to ResumableTrainLoop')


def window_problems(model: Mapping) -> Iterator[str]:
    """Windows of a prediction that are missing or leave pixels out."""
    test_cfg = model.get('test_cfg') or {}
    if test_cfg.get('mode') != 'slide':
        return
    for name in ('crop_size', 'stride'):
        value = test_cfg.get(name)
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            yield (f"model.test_cfg.{name} is {value!r}, and mode='slide' expects a height and a "
                   f'width in pixels, such as {name}=(448, 448)')
            return
    size, stride = test_cfg['crop_size'], test_cfg['stride']
    if any(step > side for side, step in zip(size, stride)):
        yield (f'model.test_cfg.stride is {tuple(stride)}, larger than crop_size={tuple(size)}: '
               'pixels between the windows would not be predicted; give a stride of at most the '
               'crop size')


def metric_problems(cfg: Config, name: str) -> Iterator[str]:
    """Groups of scores that mmseg's metric does not know."""
    for path, metric in listed(cfg.get(name), name):
        asked = metric.get('iou_metrics') or ()
        for group in [asked] if isinstance(asked, str) else asked:
            if type_name(metric) in IOU_METRICS and group not in GROUPS_OF_SCORES:
                yield (f'{path}.iou_metrics has {group!r}: expected some of '
                       f'{", ".join(GROUPS_OF_SCORES)}')


def length_problems(cfg: Config) -> Iterator[str]:
    """Lengths that are not numbers of iterations, and schedules that refuse the last ones."""
    length = cfg.train_cfg.get('max_iters')
    counts = {'train_cfg.max_iters': length}
    for path, scheduler in listed(cfg.get('param_scheduler'), 'param_scheduler'):
        counts.update({f'{path}.{key}': scheduler.get(key)
                       for key in ('end', 'T_max', 'total_steps')})
    for name, count in counts.items():
        if count is not None and not (isinstance(count, (int, float)) and count > 0):
            yield f'{name} is {count!r}: expected a number of iterations, from 1'
        elif name.endswith('total_steps') and count and isinstance(length, int) and count < length:
            yield (f'{name} is {count}, and further steps are refused: set it to '
                   f'train_cfg.max_iters={length}')


def score_problems(cfg: Config) -> Iterator[str]:
    """The score of the best checkpoint is none of the validation's."""
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    wanted = checkpoint.get('save_best') or ()
    metrics = [metric for _, metric in listed(cfg.get('val_evaluator'), '')]
    if not metrics or any(type_name(metric) not in IOU_METRICS for metric in metrics):
        return
    scores = [f'{metric["prefix"]}/{name}' if metric.get('prefix') else name
              for metric in metrics if not metric.get('format_only') for name in SCORES]
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in (*scores, 'auto'):
            yield (f'default_hooks.checkpoint.save_best is {name!r}, which val_evaluator does not '
                   f'compute: expected one of {", ".join(scores) or "none, for format_only"}')


def schedule_warnings(cfg: Config) -> Iterator[str]:
    """Schedules that do not end with the training, or have no effect."""
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
            name = {'LinearLR': 'end', 'MultiStepLR': 'milestones'}.get(kind, '')
            place = scheduler.get(name, math.inf if name == 'end' else 0)
            if (max(place, default=0) if isinstance(place, (list, tuple)) else place) > length:
                yield (f'{path}.{name} of {kind} is {scheduler.get(name, "not given")}, and '
                       f'training ends at train_cfg.max_iters={length}, before the learning rate '
                       f'gets there: set {path}.{name} to fit')
    end, path, scheduler = max(decaying, key=lambda item: item[0], default=(length, '', {}))
    if end == length:
        return
    change = f'{path}.end={length}'
    if 'T_max' in scheduler:
        change += f' and {path}.T_max={length - scheduler.get("begin", 0)}'
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


def resumed_differences(cfg: Config, checkpoint: Mapping) -> Iterator[str]:
    """Settings of schedules and optimizer that differ in a checkpoint, whose values will apply."""
    states = checkpoint.get('param_schedulers') or []
    differences = [
        f'{path}.{name} is {state[name]} there, {value} here'
        for (path, scheduler), state in zip(
            listed(cfg.get('param_scheduler'), 'param_scheduler'), states)
        for name, value in scheduler.items() if not scheduler.get('convert_to_iter_based')
        and isinstance(value, (int, float)) and state.get(name, value) != value]
    groups = (checkpoint.get('optimizer') or {}).get('param_groups') or []
    rate = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    rates = {group.get('initial_lr', group.get('lr')) for group in groups}
    if rate is not None and rates and rate not in rates:
        differences.append(f'optim_wrapper.optimizer.lr is {max(rates):g} there, {rate:g} here')
    if differences:
        yield ('resuming goes on with the schedule of the checkpoint, which differs from the '
               f"config's ({'; '.join(differences)}); to train by the config's, begin a new "
               'training from these weights with --cfg-options load_from=CHECKPOINT')
