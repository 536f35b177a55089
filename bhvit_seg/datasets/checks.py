"""Checks of every file of a data set before training."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import mmengine.fileio as fileio
import numpy as np
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from bhvit_seg.datasets.report import DatasetReport
from bhvit_seg.datasets.sample_check import SampleCheck
from bhvit_seg.datasets.transforms import LoadLidarChannels
from bhvit_seg.errors import UserError, shortened
from bhvit_seg.progress import WorkProgress

MAX_THREADS = 8
COLOURS_SHOWN = 6
SIZES_TRIED = 20


def check_from_config(cfg, split: str = 'train', progress: bool = True) -> DatasetReport:
    """Check the data set of a split of a config; see :func:`check_dataset`."""
    require_folders(cfg, split)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    loader, model = cfg[f'{split}_dataloader'], cfg.get('model') or {}
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    mean = preprocessor.get('mean') or ()
    heads = [head for name in ('decode_head', 'auxiliary_head')
             for head in _listed(model.get(name) or {})]
    metrics = _listed(cfg.get(f'{split}_evaluator') or {})
    return check_dataset(
        DATASETS.build(loader['dataset']), split,
        channels=len(mean) if len(mean) > 1 else None,  # one mean serves any number of channels
        head_classes=[head['num_classes'] for head in heads if 'num_classes' in head],
        needs_masks=not all(metric.get('format_only', False) for metric in metrics),
        batch_size=loader.get('batch_size') or 1, progress=progress)


def require_folders(cfg, split: str = 'train') -> None:
    """Raise a UserError if a config lacks a split, its ``data_root``, image folder or images."""
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise UserError(f'the config has no {split}_dataloader: choose another split')
    if not loader.get('dataset'):
        raise UserError(f'{split}_dataloader of the config has no dataset: describe one, or set '
                        f'{split}_dataloader to None')
    for dataset in _leaves(loader['dataset']):
        root = dataset.get('data_root') or ''
        folder = (dataset.get('data_prefix') or {}).get('img_path')
        places = {root: ('data_root', '--data-root, or set data_root'),
                  fileio.join_path(root, folder or ''): (
                      'image folder', 'another --data-root, or set data_prefix.img_path')}
        for place, (name, advice) in places.items():
            if place and not fileio.isdir(place):
                raise UserError(f'{name} {place} of {split}_dataloader does not exist: give '
                                f'{advice} in the config')
        # At an empty list mmengine's base class would fail without a name.
        suffixes = _image_suffixes(dataset)
        if place and not any(name.lower().endswith(suffixes) for name in fileio.list_dir_or_file(
                place, list_dir=False, recursive=True)):
            raise UserError(f'image folder {place} of {split}_dataloader holds no file ending in '
                            f'{" or ".join(suffixes)}: check data_prefix and img_suffix')


def _image_suffixes(dataset) -> tuple[str, ...]:
    """The suffixes that a config or its class gives, in lower case; ``('',)`` if neither."""
    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    parameter = inspect.signature(kind).parameters.get('img_suffix') if kind else None
    default = parameter.default if parameter else ''
    return tuple(map(str.lower, _listed(dataset.get('img_suffix', default))))


def check_dataset(dataset, split: str = 'train', channels: int | None = None, head_classes=(),
                  needs_masks: bool = True, batch_size: int = 1, progress: bool = True
                  ) -> DatasetReport:
    """Check every file of a built dataset (also one that repeats or concatenates others).

    Args:
        dataset: A ``BaseSegDataset``.
        channels: Input channels of the model, where known.
        head_classes: ``num_classes`` of the model's heads.
        needs_masks: Whether images without any mask folder are a problem.
        batch_size: Images of a batch, which must have one size.
        progress: Show progress.
    """
    parts = list(_leaves(dataset))
    classes = tuple(parts[0].metainfo['classes'])
    report = DatasetReport(split, classes, *np.zeros((2, len(classes)), np.int64), problems=[
        f"model: a head has num_classes={number}, the dataset's metainfo {len(classes)} classes: "
        'make them equal' for number in head_classes if number != len(classes)])
    samples, jobs = [], []
    for part in parts:
        infos = [part.get_data_info(index) for index in range(len(part))]
        samples += infos
        steps = part.pipeline.transforms
        lidar = next((step for step in steps if isinstance(step, LoadLidarChannels)), None)
        color_type = next((step.color_type for step in steps if hasattr(step, 'color_type')),
                          'color')
        check = SampleCheck(len(classes), color_type, lidar, channels)
        jobs += [(check, info) for info in infos]
        report.problems += _masks_without_image(part, infos)
    findings = _run(jobs, progress)
    _sum_up(report, findings)
    if samples and samples[0].get('seg_map_path') is not None:
        _judge_ids(report, findings, samples[0])
    elif samples and needs_masks:
        report.problems.insert(0, (
            f'the {split} images, such as {samples[0]["img_path"]}, have no masks to learn from '
            'or to score: set data_root and data_prefix.seg_map_path to where they are'))
    if split != 'train' and batch_size > 1 and not report.problems:
        _compare_sizes(report, [tuple(finding['size']) for finding in findings], dataset)
    return report


def _run(jobs: list[tuple[SampleCheck, dict]], progress: bool) -> list[dict]:
    findings = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as pool, (
            WorkProgress('checking', len(jobs), 'images')) as bar:
        for finding in pool.map(lambda job: job[0].run(job[1]), jobs):
            findings.append(finding)
            if progress:
                bar.add(1)
    return findings


def _sum_up(report: DatasetReport, findings: list[dict]) -> None:
    report.num_images = len(findings)
    statistics: dict[int, np.ndarray] = {}  # by the number of channels
    for finding in findings:
        report.problems += finding['problems']
        report.ignored += finding['ignored']
        if finding['labels']:
            report.pixels += finding['labels']
            report.images_with_class += np.array(finding['labels']) > 0
        if finding['channels'] is not None:
            number, sums, squares = finding['channels']
            width = len(sums)
            statistics[width] = statistics.get(width, 0) + np.array([[number] * width, sums,
                                                                     squares])
    if len(statistics) == 1:
        (number, total, squares), = statistics.values()
        mean = total / number
        report.mean = mean.tolist()
        report.std = np.sqrt(np.maximum(squares / number - mean**2, 0)).tolist()


def _judge_ids(report: DatasetReport, findings: list[dict], info: dict) -> None:
    """Recognise common mistakes from the ids of all masks together."""
    ids = sorted({id_ for finding in findings for id_ in finding['ids']})
    encoding, classes, count = info.get('mask_encoding', 'ids'), report.classes, len(report.classes)
    plain = encoding == 'ids' and not info.get('reduce_zero_label', False)
    masks = f'masks, such as {info["seg_map_path"]},'
    unknown = Counter()
    for finding in findings:
        unknown.update(finding['unknown'])
    colours = [value for value, _ in unknown.most_common() if value.startswith('#')][:COLOURS_SHOWN]
    advice = None
    if colours and isinstance(encoding, str):
        pairs = ', '.join(f"'{colour}': '{name}'" for colour, name in zip(colours, classes))
        advice = (f'the {masks} are in colours: the most frequent are {", ".join(colours)}; ' + (
            'set mask_encoding in the dataset to the class of each, such as '
            f'mask_encoding={{{pairs}}}' if 'mask_encoding' in info else
            'convert them to ids, as docs/datasets.md says, or use RSLVFDataset with '
            'mask_encoding'))
    elif plain and ids in ([0, 255], [255]):
        advice = (f'the {masks} hold only {" and ".join(map(str, ids))}, and 255 means ignored: '
                  "set mask_encoding='binary255' in the dataset if 255 is a class")
    elif report.ignored and not report.pixels.any() and not report.problems:
        found = shortened(list(map(str, ids))) or 'nothing where images have data'
        advice = (f'no pixel of the {report.split} {masks} belongs to a class, all are ignored '
                  f'(the files hold {found}): correct the masks, or mask_encoding, '
                  'reduce_zero_label or label_map of the dataset')
    if advice is not None:
        report.problems.insert(0, advice)
    elif plain and count > 1 and max({*ids} - {255}, default=0) == count:
        report.warnings.append(
            f'the greatest id is {count}, one more than {count} classes allow: set '
            'reduce_zero_label=True in the dataset if 0 means "no class" and classes begin at 1, '
            'or add the missing class')
    if count == 1:
        report.problems.insert(0, (
            f'metainfo.classes has only {classes[0]!r}: a network needs another class to tell it '
            f"from; name the background, classes=('background', {classes[0]!r}), with "
            'num_classes=2'))
    empty = [f'{name} ({label})' for label, name in enumerate(classes) if not report.pixels[label]]
    if empty:
        report.warnings.append(f'{len(empty)} of {count} classes have no pixel in {report.split}: '
                               f'{shortened(empty)}')


def _compare_sizes(report: DatasetReport, sizes: list[tuple], dataset) -> None:
    """Check that images have one size after the pipeline."""
    made: dict[tuple, str] = {}
    for index in list({size: index for index, size in enumerate(sizes)}.values())[:SIZES_TRIED]:
        sample = dataset[index]
        if hasattr(sample.get('inputs'), 'shape'):  # not those of test-time augmentation
            made[tuple(sample['inputs'].shape[-2:])] = sample['data_samples'].img_path
    if len(made) > 1:
        found = ', '.join(f'{path} {high}x{wide}' for (high, wide), path in [*made.items()][:2])
        report.problems.append(
            f'images differ in size and cannot be put into one batch (height x width: {found}): '
            f'set {report.split}_dataloader.batch_size=1')


def _masks_without_image(dataset, infos: list[dict]) -> list[str]:
    folder = dataset.data_prefix.get('seg_map_path')
    # A list of names or indices leaves images out on purpose.
    if not folder or dataset.ann_file or dataset._indices is not None or not fileio.isdir(folder):
        return []
    suffixes = tuple(suffix.lower() for suffix in _listed(dataset.seg_map_suffix))
    # One folder may hold both.
    wanted = {os.path.normpath(info[key]) for info in infos
              for key in ('img_path', 'seg_map_path') if key in info}
    masks = [fileio.join_path(folder, name) for name in sorted(
        fileio.list_dir_or_file(folder, list_dir=False, recursive=True))
        if name.lower().endswith(suffixes)]
    return [f'mask {mask} has no image in {dataset.data_prefix["img_path"]}: add it, or remove the '
            'mask' for mask in masks if os.path.normpath(mask) not in wanted]


def _listed(config) -> list:
    return list(config) if isinstance(config, (list, tuple)) else [config]


def _leaves(dataset):
    """Yield the datasets that read files, or their configs, inside wrappers."""
    get = dataset.get if isinstance(dataset, dict) else lambda name: getattr(dataset, name, None)
    if get('dataset') is not None:
        yield from _leaves(get('dataset'))
    elif get('datasets') is not None:
        for part in get('datasets'):
            yield from _leaves(part)
    else:
        yield dataset
