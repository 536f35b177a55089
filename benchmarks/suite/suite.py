"""Suite files: which configs to train and test for a table, with which seeds.

A suite is a Python file as configs are, and may have a ``_base_``::

    title = 'Roads of EPFL'
    data_root = 'data/epfl_roads'      # optional, as is everything but rows
    seeds = (0, 1, 2)
    iterations = 3000                  # schedules of all configs are scaled to this length
    size = (224, 224)                  # height and width in pixels that costs are counted at
    metrics = ('mIoU', 'IoU.road')     # what is plotted; the first one against costs
    cfg_options = {'train_dataloader.num_workers': 1}
    rows = [
        dict(name='twin', config='../bhvit/..._fp32_....py'),
        dict(name='distilled', config='../bhvit/..._distill_....py',
             cfg_options={...}, seeds=(0,),
             checkpoints={'model.teacher.checkpoint': 'twin'}),
    ]

Configs are named relative to the suite. ``checkpoints`` sets an option to the last checkpoint of an
earlier row with the same seed.
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

from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.scores import COLUMNS
from bhvit_seg.training.config import (
    check_options,
    load_config,
    require_segmentation,
    require_settings,
)

SUMMARY = ('aAcc', 'mIoU', 'mFscore', 'mAcc')
SETTINGS = ('title', 'data_root', 'seeds', 'iterations', 'size', 'metrics', 'cfg_options', 'rows')
ROW_SETTINGS = ('name', 'config', 'seeds', 'cfg_options', 'checkpoints')
# Lengths and positions of learning rate schedules, in iterations.
SCHEDULE_KEYS = ('begin', 'end', 'T_max', 'periods', 'milestones', 'step_size', 'total_steps')


@dataclass
class Row:
    """A row of the table.

    Attributes:
        name: Its name, also that of its folder.
        config: The config file.
        cfg: The config with all settings but those of a single run.
        seeds: One run for each.
        sources: By dotted key, the row whose checkpoint an option is set to.
    """

    name: str
    config: Path
    cfg: Config
    seeds: tuple[int, ...]
    sources: dict[str, Row] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """Length of each training."""
        return self.cfg.train_cfg.max_iters


@dataclass
class Suite:
    """The content of a suite file; see the docstring of the module."""

    path: Path
    title: str
    rows: list[Row]
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    size: tuple[int, int]
    data_root: str | None


def load_suite(path: str | Path, data_root: str | None = None,
               seeds: Sequence[int] | None = None) -> Suite:
    """Read a suite and every config that it names.

    Args:
        path: The suite file.
        data_root: The folder of the data. Defaults to the suite's, then to each config's.
        seeds: Seeds of every row. Defaults to the suite's.

    Raises:
        UserError: The suite or a config is missing or has a setting that is wrong.
    """
    path = Path(path)
    given = load_config(path).to_dict()
    _check_keys(f'the suite {path}', given, SETTINGS)
    rows: dict[str, Row] = {}
    for entry in given.get('rows') or ():
        row = _load_row(path, entry, given, seeds, rows)
        if row.name in rows:
            raise UserError(f'the suite {path} has two rows {row.name!r}: give each its own name')
        rows[row.name] = row
    if not rows:
        raise UserError(f'the suite {path} has no rows: give a list of dict(name=..., config=...)')
    classes = {row.name: class_names(row.cfg) for row in rows.values()}
    first = next(iter(rows))
    for name in rows:
        if classes[name] != classes[first]:
            raise UserError(
                f'the row {name!r} of the suite {path} has the classes {", ".join(classes[name])} '
                f'and {first!r} has {", ".join(classes[first])}: compare on one data set')
    metrics = tuple(given.get('metrics', ('mIoU',)))
    known = [*SUMMARY, *(f'{column}.{name}' for name in classes[first] for column in COLUMNS)]
    for metric in metrics:
        if metric not in known:
            raise UserError(f'the suite {path} has the metric {metric!r}: expected one of '
                            f'{", ".join(known)}')
    size = tuple(given.get('size') or rows[first].cfg.get('crop_size') or (512, 512))
    return Suite(path, given.get('title', path.stem), list(rows.values()), classes[first],
                 metrics, size, data_root or given.get('data_root'))


def _check_keys(owner: str, given: Any, known: Sequence[str]) -> None:
    for key in given if isinstance(given, dict) else [given]:
        if key not in known:
            raise UserError(f'{owner} has the setting {key!r}: expected one of '
                            f'{", ".join(sorted(known))}')


def _load_row(path: Path, entry: Any, suite: dict[str, Any], seeds: Sequence[int] | None,
              rows: dict[str, Row]) -> Row:
    _check_keys(f'a row of the suite {path}', entry, ROW_SETTINGS)
    name = entry.get('name')
    owner = f'the row {name!r} of the suite {path}'
    if not re.fullmatch(r'[\w+][\w.+-]*', str(name)):
        raise UserError(f'{owner} needs a name for a folder: use letters, digits and . _ + -')
    seeds = tuple(seeds or entry.get('seeds') or suite.get('seeds') or (0,))
    if len(set(seeds)) < len(seeds) or not all(isinstance(n, int) and n >= 0 for n in seeds):
        raise UserError(f'{owner} has the seeds {seeds}: expected whole numbers from 0, each once')
    sources = {}
    for option, source in (entry.get('checkpoints') or {}).items():
        if source not in rows or not {*seeds} <= {*rows[source].seeds}:
            raise UserError(f'{owner} sets {option} to the checkpoint of {source!r}: name an '
                            'earlier row that has the same seeds')
        sources[option] = rows[source]
    try:
        config = path.parent / str(entry.get('config'))
        cfg = load_config(config, {**suite.get('cfg_options', {}), **entry.get('cfg_options', {})})
        check_options(cfg, sources)
        require_settings(cfg, config, 'model', 'train_dataloader', 'train_cfg', 'test_dataloader',
                         'test_evaluator')
        require_segmentation(cfg, config)
        if 'max_iters' not in cfg.train_cfg:
            raise UserError(f'the config {config} trains by epochs: expected train_cfg.max_iters')
        if 'iterations' in suite:
            scale_schedule(cfg, suite['iterations'])
    except UserError as error:
        raise UserError(f'{owner}: {error}') from error
    return Row(name, config.resolve(), cfg, seeds, sources)


def scale_schedule(cfg: Config, iterations: int) -> None:
    """Train for ``iterations`` and scale learning rate schedules and intervals to that length.

    Raises:
        UserError: It is not a number from 1.
    """
    if not isinstance(iterations, int) or iterations < 1:
        raise UserError(f'iterations is {iterations!r}: expected a whole number from 1')
    before, cfg.train_cfg.max_iters = cfg.train_cfg.max_iters, iterations

    def scale(node: dict, *keys: str) -> None:
        for key in keys:
            value = node.get(key)
            if isinstance(value, (list, tuple)):
                node[key] = type(value)(-(-each * iterations // before) for each in value)
            elif value is not None and value > 0:
                # Rounded up, so that the whole training stays covered.
                node[key] = -(-value * iterations // before)

    for scheduler in cfg.get('param_scheduler') or ():
        if not scheduler.get('by_epoch', True):
            scale(scheduler, *SCHEDULE_KEYS)
    scale(cfg.train_cfg, 'val_interval')
    scale((cfg.get('default_hooks') or {}).get('checkpoint') or {}, 'interval')


def class_names(cfg: Config) -> tuple[str, ...]:
    """Return the names of the classes that the test set of a config is scored on."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = cfg.test_dataloader.dataset
    default = getattr(DATASETS.get(dataset.type), 'METAINFO', {})
    return tuple({**default, **(dataset.get('metainfo') or {})}.get('classes') or ())
