"""Score a checkpoint on the test set of a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmengine.config import Config
from mmengine.dist import is_main_process

from bhvit_seg.datasets.checks import require_folders
from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.metric import PerClassMetric
from bhvit_seg.evaluation.scores import without_nan
from bhvit_seg.fileio import make_output_folder, write_json
from bhvit_seg.models.weights import load_weights
from bhvit_seg.training.config import (
    explain_config_errors,
    listed,
    load_config,
    require_segmentation,
    require_settings,
    score_classes,
    type_name,
    work_dir_of,
)
from bhvit_seg.training.config_check import require_sound
from bhvit_seg.training.runner import ResumingRunner, model_of, start_processes


def test(config: str | Path, checkpoint: str | Path, data_root: str | Path | None = None,
         work_dir: str | Path | None = None, out: str | Path | None = None, tta: bool = False,
         cfg_options: dict[str, Any] | None = None, launcher: str = 'none') -> dict[str, Any]:
    """Score a checkpoint on the test set of its config.

    Args:
        config, data_root, cfg_options, launcher: As for :func:`bhvit_seg.training.train.train`.
        checkpoint: Weights that fit the model exactly.
        work_dir: Folder of logs and of the scores, ``test_<checkpoint>.json``.
        out: Folder for the predicted label maps. Defaults to None: none are written.
        tta: Average over scaled and mirrored images: ``tta_pipeline`` of the config, or the test
            pipeline and its mirror image.

    Returns:
        ``summary`` (aAcc, mIoU, mFscore, mAcc and others), ``classes`` (IoU, F1, Precision, Recall
        by class name; None for a class that occurs nowhere), all in per cent, and what was tested.
        Both are empty with ``test_evaluator.format_only``.
    """
    cfg = load_config(config, cfg_options, data_root)
    require_settings(cfg, config, 'model', 'test_dataloader', 'test_evaluator')
    require_segmentation(cfg, config)
    warnings = require_sound(cfg, 'test')
    require_folders(cfg, 'test')
    cfg.work_dir = str(make_output_folder(work_dir_of(cfg, config, work_dir), '--work-dir'))
    if out is not None:
        make_output_folder(out, '--out')
    cfg.setdefault('test_cfg', {'type': 'TestLoop'})
    cfg.load_from, cfg.resume = None, False
    cfg.model.pop('init_cfg', None)
    set_evaluators(cfg, out)
    if tta:
        set_tta(cfg)
    start_processes(cfg, launcher)
    with explain_config_errors():
        runner = ResumingRunner.from_cfg(cfg)
        for warning in warnings:
            runner.logger.warning(warning)
        model = model_of(runner)
        load_weights(model.module if tta else model, checkpoint)
        summary = runner.test()
    metric = next(metric for metric in runner.test_evaluator.metrics
                  if isinstance(metric, PerClassMetric))
    result = {'config': str(config), 'checkpoint': str(checkpoint), 'tta': tta,
              'summary': without_nan(summary), 'classes': {
                  name: without_nan(scores) for name, scores in metric.classes.items()}}
    if is_main_process():
        name = f'test_{Path(checkpoint).stem}{"_tta" if tta else ""}.json'
        write_json(Path(cfg.work_dir) / name, result)
    return result


def set_evaluators(cfg: Config, out: str | Path | None) -> None:
    """Let the evaluators keep the scores of classes; predictions need a folder ``out``."""
    cfg.test_evaluator = [evaluator for _, evaluator in listed(cfg.test_evaluator, '')]
    score_classes(cfg, 'test')
    if 'PerClassMetric' not in map(type_name, cfg.test_evaluator):
        cfg.test_evaluator = [*cfg.test_evaluator, {'type': 'PerClassMetric'}]
    dataset = cfg.test_dataloader.dataset
    prefix = (dataset.get('data_prefix') or {}).get('img_path')
    for evaluator in cfg.test_evaluator:
        if type_name(evaluator) != 'PerClassMetric':
            continue
        if evaluator.get('format_only') and out is None and not evaluator.get('output_dir'):
            raise UserError('test_evaluator.format_only writes predictions in place of scores: '
                            'give a folder for them with --out')
        evaluator['log_classes'] = False
        if out is not None:
            evaluator['label_dir'] = str(out)
            evaluator['image_dir'] = prefix and str(Path(dataset.get('data_root') or '') / prefix)


def set_tta(cfg: Config) -> None:
    """Wrap the model and replace the test pipeline, as mmseg's tools do for ``--tta``."""
    dataset = cfg.test_dataloader.dataset
    if 'tta_pipeline' not in cfg:
        *preparation, packing = dataset.pipeline
        mirrored = [{'type': 'RandomFlip', 'prob': prob, 'direction': 'horizontal'}
                    for prob in (0., 1.)]
        cfg.tta_pipeline = [
            *preparation, {'type': 'TestTimeAug', 'transforms': [mirrored, [packing]]}]
    dataset.pipeline = cfg.tta_pipeline
    wrapper = cfg.get('tta_model') or {'type': 'SegTTAModel'}
    cfg.model = {**wrapper, 'module': cfg.model}
