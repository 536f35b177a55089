"""Checks of every file of a data set before it is trained on.

``bhvit-seg check-dataset`` and :class:`~bhvit_seg.training.hooks.DatasetCheckHook` call them: ids
out of range, missing pairs and damaged files otherwise show as a crash hours later, or as an IoU
of 0.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import mmengine.fileio as fileio
import numpy as np
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar
from mmseg.registry import DATASETS

from bhvit_seg.datasets.check_cache import CheckCache
from bhvit_seg.datasets.report import DatasetReport, shortened
from bhvit_seg.datasets.sample_check import SampleCheck
from bhvit_seg.datasets.transforms import LoadLidarChannels
from bhvit_seg.errors import UserError, find_user_error

MAX_THREADS = 8
COLOURS_SHOWN = 6
SIZES_TRIED = 20
FILE_KEYS = ('img_path', 'seg_map_path', 'lidar_path')


def check_from_config(cfg, split: str = 'train', cache_file: str | os.PathLike | None = None,
                      progress: bool = True) -> DatasetReport:
    """Check the data set of one split of a config.

    Args:
        cfg: An mmengine config with ``{split}_dataloader`` and, to compare with, ``model`` and
            ``data_preprocessor``.
        split: ``train``, ``val`` or ``test``.
        cache_file: Where findings are remembered from one check to the next.
        progress: Whether to show a progress bar (on a terminal).

    Raises:
        UserError: The config has no such split, a folder is missing or empty, or an argument of
            the dataset is wrong.
    """
    require_folders(cfg, split)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    try:
        dataset = DATASETS.build(cfg[f'{split}_dataloader']['dataset'])
    except Exception as error:
        user_error = find_user_error(error)
        if user_error is None:
            raise
        raise user_error from error
    model = cfg.get('model') or {}
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    mean = preprocessor.get('mean') or ()
    heads = [model.get(name) for name in ('decode_head', 'auxiliary_head')]
    metrics = _listed(cfg.get(f'{split}_evaluator') or {})
    return check_dataset(
        dataset, split,
        # A single mean serves any number of channels.
        channels=len(mean) if len(mean) > 1 else None,
        head_classes=tuple(head['num_classes'] for part in heads for head in _listed(part or {})
                           if 'num_classes' in head),
        needs_masks=not all(metric.get('format_only', False) for metric in metrics),
        batch_size=cfg[f'{split}_dataloader'].get('batch_size') or 1,
        cache_file=cache_file, progress=progress)


def require_folders(cfg, split: str = 'train') -> None:
    """Check that the folders of a split exist, before a dataset is built on them.

    Raises:
        UserError: The config has no such split, or a ``data_root`` or image folder is missing.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise UserError(f'the config has no {split}_dataloader: choose another split')
    if not loader.get('dataset'):
        raise UserError(f'{split}_dataloader of the config has no dataset: describe one, or set '
                        f'{split}_dataloader to None')
    for dataset in _dataset_configs(loader['dataset']):
        root = dataset.get('data_root')
        if root and not fileio.isdir(root):
            raise UserError(f'data_root {root} of {split}_dataloader does not exist: give '
                            '--data-root, or set data_root in the config')
        folder = (dataset.get('data_prefix') or {}).get('img_path')
        if folder and not fileio.isdir(fileio.join_path(root or '', folder)):
            raise UserError(f'image folder {fileio.join_path(root or "", folder)} of '
                            f'{split}_dataloader does not exist: give another --data-root, or '
                            'set data_prefix.img_path in the config')


def check_dataset(dataset, split: str = 'train', channels: int | None = None,
                  head_classes: tuple[int, ...] = (), needs_masks: bool = True,
                  batch_size: int = 1, cache_file: str | os.PathLike | None = None,
                  progress: bool = True) -> DatasetReport:
    """Check every file of a built dataset (also one that repeats or joins others).

    Args:
        dataset: A ``BaseSegDataset``.
        split: Its name in the report.
        channels: Channels that the model takes.
        head_classes: ``num_classes`` of the model's heads.
        needs_masks: Whether images without any mask folder are a problem.
        batch_size: Images that are put together into one array.
        cache_file: As in :func:`check_from_config`.
        progress: As in :func:`check_from_config`.
    """
    parts = list(_leaves(dataset))
    classes = tuple(parts[0].metainfo['classes'])
    report = DatasetReport(split, classes, pixels=np.zeros(len(classes), np.int64),
                           images_with_class=np.zeros(len(classes), np.int64))
    for number in head_classes:
        if number != len(classes):
            report.problems.append(
                f"model: a head has num_classes={number}, the dataset's metainfo {len(classes)} "
                'classes: make them equal')
    findings, samples = [], []
    for index, part in enumerate(parts):
        infos = [part.get_data_info(i) for i in range(len(part))]
        check = _sample_check(part, len(classes), channels)
        name = None if cache_file is None else (
            cache_file if index == 0 else f'{os.fspath(cache_file)}.{index}')
        findings += _run(check, infos, CheckCache(name, _settings(check, part)), progress)
        samples += infos
        report.problems += _masks_without_image(part, infos)
    _sum_up(report, findings)
    if samples and samples[0].get('seg_map_path') is None:
        image = samples[0]['img_path']
        if needs_masks:
            report.problems.insert(0, (
                f'the {split} images, such as {image}, have no masks to learn from or to score: '
                'set data_root and data_prefix.seg_map_path to where they are'))
    elif samples:
        _judge_ids(report, findings, samples[0])
    if split != 'train' and batch_size > 1 and not report.problems:
        _compare_sizes(report, findings, samples, dataset, batch_size)
    return report


def _run(check: SampleCheck, infos: list[dict], cache: CheckCache, progress: bool) -> list[dict]:
    """Return the finding on each sample, in order."""

    def check_or_recall(info: dict) -> dict:
        paths = [info[key] for key in FILE_KEYS if info.get(key) is not None]
        finding = cache.get(paths)
        if finding is None:
            finding = check.run(info)
            cache.put(paths, finding)
        return finding

    shown = progress and sys.stderr.isatty() and len(infos)
    bar = ProgressBar(len(infos), file=sys.stderr) if shown else None
    findings = []
    try:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as pool:
            for finding in pool.map(check_or_recall, infos):
                findings.append(finding)
                if bar is not None:
                    bar.update()
    finally:
        # Also when interrupted: the next check goes on from here.
        cache.save()
        if bar is not None:
            sys.stderr.write('\n')
    return findings


def _sum_up(report: DatasetReport, findings: list[dict]) -> None:
    report.num_images = len(findings)
    statistics: dict[int, list[np.ndarray]] = {}
    for finding in findings:
        report.problems += finding['problems']
        for label, count in finding['labels'].items():
            report.pixels[int(label)] += count
            report.images_with_class[int(label)] += 1
        report.ignored += finding['ignored']
        if finding['channels'] is not None:
            number, *sums = finding['channels']
            row = np.array([[number] * len(sums[0]), *sums])
            width = row.shape[1]
            statistics[width] = statistics.get(width, 0) + row
    if len(statistics) == 1:
        (number, total, squares), = statistics.values()
        mean = total / number
        report.mean = mean.tolist()
        report.std = np.sqrt(np.maximum(squares / number - mean**2, 0)).tolist()


def _judge_ids(report: DatasetReport, findings: list[dict], info: dict) -> None:
    """Recognise common mistakes from the ids of all masks together."""
    ids = {int(value) for finding in findings for value in finding['ids']}
    path = info['seg_map_path']
    by_id = info.get('mask_encoding', 'ids') == 'ids'
    reduced = info.get('reduce_zero_label', False)
    count = len(report.classes)
    colours = Counter()
    for finding in findings:
        colours.update({value: number for value, number in finding['unknown'].items()
                        if value.startswith('#')})
    advice = None
    if colours and isinstance(info.get('mask_encoding', 'ids'), str):
        advice = (f'the masks, such as {path}, are in colours: '
                  + _encoding_advice(colours.most_common(COLOURS_SHOWN), report.classes))
    elif by_id and not reduced and ids in ({0, 255}, {255}):
        advice = (f'the masks, such as {path}, hold only {" and ".join(map(str, sorted(ids)))}, '
                  "and 255 means ignored: set mask_encoding='binary255' in the dataset if 255 is "
                  'a class')
    elif report.ignored and not report.pixels.any() and not report.problems:
        found = shortened(list(map(str, sorted(ids)))) or 'nothing where images have data'
        advice = (f'no pixel of the {report.split} masks, such as {path}, belongs to a class, all '
                  f'are ignored (the files hold {found}): correct the masks, or mask_encoding, '
                  'reduce_zero_label or label_map of the dataset')
    if advice is not None:
        report.problems.insert(0, advice)
    elif by_id and not reduced and count > 1 and max(ids - {255}, default=0) == count:
        report.warnings.append(
            f'the greatest id is {count}, one more than {count} classes allow: set '
            'reduce_zero_label=True in the dataset if 0 means "no class" and classes begin at 1, '
            'or add the missing class')
    if count == 1:
        report.problems.insert(0, (
            f'metainfo.classes has only {report.classes[0]!r}: a network needs another class to '
            f"tell it from; name the background, classes=('background', {report.classes[0]!r}), "
            'with num_classes=2'))
    empty = [f'{name} ({label})' for label, name in enumerate(report.classes)
             if not report.pixels[label]]
    if empty:
        report.warnings.append(f'{len(empty)} of {count} classes have no pixel in {report.split}: '
                               f'{shortened(empty)}')


def _encoding_advice(colours: list[tuple[str, int]], classes: tuple[str, ...]) -> str:
    """Suggest a ``mask_encoding`` for masks that hold colours with so many pixels each."""
    names = [colour for colour, _ in colours]
    pairs = ', '.join(f"'{colour}': '{name}'" for colour, name in zip(names, classes))
    return (f'the most frequent are {", ".join(names)}; set mask_encoding in the dataset to the '
            f'class of each, such as mask_encoding={{{pairs}}}')


def _compare_sizes(report: DatasetReport, findings: list[dict], samples: list[dict], dataset,
                   batch_size: int) -> None:
    """Check that images of a batch have one size after the pipeline."""
    first: dict[tuple, int] = {}
    for index, finding in enumerate(findings):
        if finding['size'] is not None:
            first.setdefault(tuple(finding['size']), index)
    made: dict[tuple, int] = {}
    for index in list(first.values())[:SIZES_TRIED]:
        inputs = dataset[index].get('inputs')
        if hasattr(inputs, 'shape'):  # not those of test-time augmentation, which are several
            made.setdefault(tuple(inputs.shape[-2:]), index)
    if len(made) > 1:
        (one, i), (other, j) = list(made.items())[:2]
        report.problems.append(
            f'{report.split}_dataloader.batch_size is {batch_size}, but images differ in size and '
            f'cannot be put into one batch: {samples[i]["img_path"]} is {one[0]}x{one[1]} '
            f'(height x width), {samples[j]["img_path"]} {other[0]}x{other[1]}; set '
            f'{report.split}_dataloader.batch_size=1')


def _masks_without_image(dataset, infos: list[dict]) -> list[str]:
    folder = dataset.data_prefix.get('seg_map_path')
    # A list of names or indices leaves images out on purpose.
    if not folder or dataset.ann_file or dataset._indices is not None or not fileio.isdir(folder):
        return []
    suffixes = dataset.seg_map_suffix
    suffixes = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    wanted = {os.path.normpath(info['seg_map_path']) for info in infos if 'seg_map_path' in info}
    problems = []
    for name in sorted(fileio.list_dir_or_file(folder, list_dir=False, recursive=True)):
        path = fileio.join_path(folder, name)
        if name.lower().endswith(tuple(s.lower() for s in suffixes)) and (
                os.path.normpath(path) not in wanted):
            problems.append(f'mask {path} has no image in {dataset.data_prefix["img_path"]}: add '
                            'it, or remove the mask')
    return problems


def _sample_check(dataset, num_classes: int, channels: int | None) -> SampleCheck:
    color_type, lidar = 'color', None
    for transform in dataset.pipeline.transforms:
        color_type = getattr(transform, 'color_type', color_type)
        if isinstance(transform, LoadLidarChannels):
            lidar = transform
    return SampleCheck(num_classes, color_type, lidar, channels)


def _settings(check: SampleCheck, dataset) -> str:
    """Everything besides the files that a finding depends on."""
    return json.dumps([
        repr(check), list(dataset.metainfo['classes']), dataset.reduce_zero_label,
        str(dataset.label_map), str(getattr(dataset, 'mask_encoding', 'ids'))])


def _listed(config) -> list:
    """A config that may be one dict or a list of them, as a list."""
    return list(config) if isinstance(config, (list, tuple)) else [config]


def _dataset_configs(config):
    """The configs of the datasets that read files, inside ones that repeat or join others."""
    if 'datasets' in config:
        for inner in config['datasets']:
            yield from _dataset_configs(inner)
    elif 'dataset' in config:
        yield from _dataset_configs(config['dataset'])
    else:
        yield config


def _leaves(dataset):
    """The datasets that read files, inside ones that repeat or join others."""
    if hasattr(dataset, 'datasets'):
        for inner in dataset.datasets:
            yield from _leaves(inner)
    elif hasattr(dataset, 'dataset'):
        yield from _leaves(dataset.dataset)
    else:
        yield dataset
