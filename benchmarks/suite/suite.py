"""Suite files: which configs to train and test for a table, with which seeds.

A suite is a Python file as configs are, and may have a ``_base_``::

    title = 'Roads of EPFL'
    data_root = 'data/epfl_roads'      # optional, as is everything but rows
    seeds = (0, 1, 2)
    iterations = 3000                  # each config's schedule is stretched to this
    size = (224, 224)                  # height and width that costs are measured at
    metrics = ('mIoU', 'IoU.road')     # what is drawn; against costs the first of them
    cfg_options = {'train_dataloader.num_workers': 1}
    rows = [
        dict(name='twin', config='../bhvit/..._fp32_....py'),
        dict(name='taught', config='../bhvit/..._distill_....py',
             cfg_options={...}, seeds=(0,),
             checkpoints={'model.teacher.checkpoint': 'twin'}),
    ]

Configs are named relative to the suite. ``checkpoints`` gives an option the last checkpoint of
another row's run with the same seed, which is why that row has to come before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from bhvit_seg.errors import UserError, find_user_error, first_line
from bhvit_seg.evaluation.complexity_report import DEFAULT_SIZE
from bhvit_seg.evaluation.scores import COLUMNS
from bhvit_seg.training.config import (
    check_options,
    load_config,
    require_segmentation,
    require_settings,
)

SUMMARY = ('aAcc', 'mIoU', 'mFscore', 'mAcc')
# Lengths and places of learning rate schedules, in iterations.
SCHEDULE_KEYS = ('begin', 'end', 'T_max', 'periods', 'milestones', 'step_size', 'total_steps')


@dataclass
class Row:
    """A line of the table.

    Attributes:
        name: Its name, also that of its folder.
        config: The config file.
        seeds: One run for each.
        cfg_options: Settings that override the config's, by dotted key.
        checkpoints: The row whose checkpoint an option gets, by dotted key.
        cfg: The config with all settings but the seed's.
        classes: Names of the classes that it is scored on.
        sources: The rows that ``checkpoints`` names.
    """

    name: str
    config: Path
    seeds: tuple[int, ...]
    cfg_options: dict[str, Any] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    cfg: Config | None = None
    classes: tuple[str, ...] = ()
    sources: dict[str, Row] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """How long each run trains."""
        return self.cfg.train_cfg.max_iters


@dataclass
class Suite:
    """What a suite file says; see the docstring of the module."""

    path: Path
    title: str
    rows: list[Row]
    size: tuple[int, int]
    metrics: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that all rows are scored on."""
        return self.rows[0].classes


def load_suite(path: str | Path, data_root: str | Path | None = None,
               seeds: Sequence[int] | None = None) -> Suite:
    """Read a suite and every config that it names, and see that they fit together.

    Args:
        path: The suite file.
        data_root: The folder of the data. Defaults to the suite's, then to each config's.
        seeds: More seeds for every row.

    Raises:
        UserError: The suite or a config is missing, broken or says what there is not.
    """
    path = Path(path)
    known = {'title', 'data_root', 'seeds', 'iterations', 'size', 'metrics', 'cfg_options', 'rows'}
    settings = _read(path)
    _check_keys(settings, known, f'the suite {path}')
    if not isinstance(settings.get('rows'), (list, tuple)) or not settings['rows']:
        raise UserError(f'the suite {path} has no rows: give a list of dict(name=..., config=...)')
    common = _mapping(settings, 'cfg_options', f'the suite {path}')
    metrics = settings.get('metrics') or ('mIoU',)
    if not isinstance(metrics, (list, tuple)) or not all(isinstance(m, str) for m in metrics):
        raise UserError(f'the suite {path} has metrics={metrics!r}: give a list of names')
    data_root = data_root or settings.get('data_root')
    default_seeds = settings.get('seeds', (0,))
    rows: dict[str, Row] = {}
    for number, entry in enumerate(settings['rows'], 1):
        row = _row(path, number, entry, default_seeds, seeds)
        if row.name in rows:
            raise UserError(f'the suite {path} has two rows {row.name!r}: give each its own name')
        for option, source in row.checkpoints.items():
            _check_source(path, row, option, source, rows)
            row.sources[source] = rows[source]
        _complete(path, row, common, data_root, settings.get('iterations'))
        rows[row.name] = row
    suite = Suite(path, settings.get('title') or path.stem, list(rows.values()),
                  _size(path, settings.get('size'), next(iter(rows.values()))),
                  tuple(metrics))
    _check_comparable(suite)
    return suite


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f'no suite at {path}: give the path of a .py file such as those in '
                        'configs/suites')
    try:
        return Config.fromfile(str(path)).to_dict()
    except Exception as error:
        if find_user_error(error):
            raise
        raise UserError(f'the suite {path} cannot be read: {type(error).__name__}: '
                        f'{first_line(error)}') from error


def _mapping(entry: dict[str, Any], key: str, owner: str) -> dict[str, Any]:
    """A setting of settings by dotted key; empty where there is none."""
    value = entry.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f'{owner} has {key}={value!r}: give a dict from dotted keys')
    return dict(value)


def _check_keys(entry: dict[str, Any], known: set[str], owner: str) -> None:
    for key in entry:
        if key not in known:
            raise UserError(f'{owner} has a setting {key!r} that there is not: known are '
                            f'{", ".join(sorted(known))}')


def _check_seeds(seeds: Any, owner: str) -> None:
    if not isinstance(seeds, (list, tuple)) or not seeds or len(set(seeds)) < len(seeds) or not \
            all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise UserError(f'{owner} has the seeds {seeds!r}: expected whole numbers from 0, each '
                        'once')


def _row(path: Path, number: int, entry: Any, default_seeds: Any,
         more_seeds: Sequence[int] | None) -> Row:
    if not isinstance(entry, dict) or not isinstance(entry.get('name'), str):
        raise UserError(f'row {number} of the suite {path} is {entry!r}: expected '
                        'dict(name=..., config=...)')
    name = entry['name']
    owner = f'the row {name!r} of the suite {path}'
    _check_keys(entry, {'name', 'config', 'seeds', 'cfg_options', 'checkpoints'}, owner)
    if not re.fullmatch(r'[\w+][\w.+-]*', name):
        raise UserError(f'{owner} has a name that is no name of a folder: use letters, digits and '
                        '. _ + -')
    own_seeds = entry.get('seeds', default_seeds)
    _check_seeds(own_seeds, owner)
    if more_seeds is not None:
        _check_seeds(more_seeds, owner)
    seeds = dict.fromkeys([*own_seeds, *(more_seeds or ())])
    if not isinstance(entry.get('config'), str):
        raise UserError(f'{owner} has no config: name one, relative to the suite')
    config = path.parent / entry['config']
    if not config.is_file():
        raise UserError(f'{owner} names the config {entry["config"]}, but there is no {config}: '
                        'configs are named relative to the suite')
    return Row(name, config.resolve(), tuple(seeds), _mapping(entry, 'cfg_options', owner),
               _mapping(entry, 'checkpoints', owner))


def _check_source(path: Path, row: Row, option: str, source: str, rows: dict[str, Row]) -> None:
    owner = f'the row {row.name!r} of the suite {path}'
    if source not in rows:
        raise UserError(f'{owner} sets {option} to the checkpoint of {source!r}, which is no row '
                        'before it')
    missing = [seed for seed in row.seeds if seed not in rows[source].seeds]
    if missing:
        raise UserError(f'{owner} sets {option} to the checkpoint of {source!r}, which has no '
                        f'seed {missing[0]}: give both rows the same seeds')


def _complete(path: Path, row: Row, common: dict[str, Any], data_root: str | Path | None,
              iterations: int | None) -> None:
    """Load a row's config and set everything that all its runs share."""
    row.cfg_options = {**common, **row.cfg_options}
    try:
        row.cfg = load_config(row.config, row.cfg_options, data_root)
        check_options(row.cfg, row.checkpoints)
        require_settings(row.cfg, row.config, 'model', 'train_dataloader', 'train_cfg',
                         'test_dataloader', 'test_evaluator')
        require_segmentation(row.cfg, row.config)
        if 'max_iters' not in row.cfg.train_cfg:
            raise UserError(f'the config {row.config} trains by epochs: a suite takes configs '
                            'with train_cfg.max_iters')
        if iterations is not None:
            set_iterations(row.cfg, iterations)
    except UserError as error:
        raise UserError(f'the row {row.name!r} of the suite {path}: {error}') from error
    row.classes = class_names(row.cfg)


def set_iterations(cfg: Config, iterations: int) -> None:
    """Train for so many iterations, and stretch the learning rate schedules to them.

    Raises:
        UserError: It is not a number from 1.
    """
    if not isinstance(iterations, int) or iterations < 1:
        raise UserError(f'iterations is {iterations!r}: expected a whole number from 1')
    before = cfg.train_cfg.max_iters
    cfg.train_cfg.max_iters = iterations

    def stretch(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(stretch(each) for each in value)
        # Rounded up, so that periods still cover what they did.
        return -(-value * iterations // before)

    for scheduler in cfg.get('param_scheduler') or ():
        for key in SCHEDULE_KEYS:
            if scheduler.get(key) is not None and not scheduler.get('by_epoch', True):
                scheduler[key] = stretch(scheduler[key])
    if cfg.train_cfg.get('val_interval'):
        cfg.train_cfg.val_interval = stretch(cfg.train_cfg.val_interval)
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint and checkpoint.get('interval', -1) > 0:
        checkpoint.interval = stretch(checkpoint.interval)


def class_names(cfg: Config) -> tuple[str, ...]:
    """Names of the classes that the test set of a config is scored on."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = cfg.test_dataloader.dataset
    kind = DATASETS.get(dataset.type)
    metainfo = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    return tuple(metainfo.get('classes') or ())


def _size(path: Path, size: Any, row: Row) -> tuple[int, int]:
    size = size or row.cfg.get('crop_size') or DEFAULT_SIZE
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(
            isinstance(length, int) and length > 0 for length in size):
        raise UserError(f'the suite {path} has size={size!r}: give height and width in pixels')
    return tuple(size)


def _check_comparable(suite: Suite) -> None:
    """See that all rows have the same classes, and that there is every metric."""
    for row in suite.rows:
        if row.classes != suite.classes:
            raise UserError(
                f'the row {row.name!r} of the suite {suite.path} has the classes '
                f'{", ".join(row.classes)} and the first one {", ".join(suite.classes)}: a suite '
                'compares on one data set')
    known = [*SUMMARY, *(f'{column}.{name}' for name in suite.classes for column in COLUMNS)]
    for metric in suite.metrics:
        if metric not in known:
            raise UserError(f'the suite {suite.path} has the metric {metric!r}, which there is '
                            f'not: known are {", ".join(known)}')
