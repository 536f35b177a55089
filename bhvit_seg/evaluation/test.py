"""Testing: what ``tools/test.py`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from bhvit_seg.datasets.checks import require_folders
from bhvit_seg.evaluation.metric import PerClassMetric
from bhvit_seg.evaluation.scores import without_nan
from bhvit_seg.fileio import make_output_folder, write_json
from bhvit_seg.models.weights import load_weights
from bhvit_seg.training.config import (
    explain_config_errors,
    load_config,
    require_segmentation,
    require_settings,
    work_dir_of,
)
from bhvit_seg.training.processes import start_processes


def test(config: str | Path,
         checkpoint: str | Path,
         data_root: str | Path | None = None,
         work_dir: str | Path | None = None,
         out: str | Path | None = None,
         tta: bool = False,
         cfg_options: dict[str, Any] | None = None,
         launcher: str = 'none') -> dict[str, Any]:
    """Score a checkpoint on the test set of its config.

    Args:
        config: The config file.
        checkpoint: The weights; they have to be exactly those of the model.
        data_root: The folder of the data. Defaults to the config's.
        work_dir: Where logs and the scores go, the latter as ``test_<checkpoint>.json``.
        out: A folder for the predicted label maps. Defaults to None: none are written.
        tta: Average over scaled and mirrored images: ``tta_pipeline`` of the config, or the test
            pipeline and its mirror image.
        cfg_options: Settings that override the config's, by dotted key.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        dict: ``summary`` (aAcc, mIoU, mFscore, mAcc), ``classes`` (IoU, F1, Precision, Recall by
        class name; None for a class that occurs nowhere), all in per cent, and what was tested.

    Raises:
        UserError: Something given is wrong.
    """
    cfg = load_config(config, cfg_options, data_root)
    require_settings(cfg, config, 'model', 'test_dataloader', 'test_evaluator')
    require_segmentation(cfg, config)
    require_folders(cfg, 'test')
    cfg.work_dir = str(make_output_folder(work_dir_of(cfg, config, work_dir), '--work-dir'))
    if out is not None:
        make_output_folder(out, '--out')
    cfg.setdefault('test_cfg', {'type': 'TestLoop'})
    cfg.load_from, cfg.resume = None, False
    cfg.model.pop('init_cfg', None)
    set_evaluator(cfg, out)
    if tta:
        set_tta(cfg)
    start_processes(cfg, launcher)
    with explain_config_errors():
        runner = Runner.from_cfg(cfg)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        load_weights(model.module if tta else model, checkpoint)
        summary = runner.test()
    metric = next(metric for metric in runner.test_evaluator.metrics
                  if isinstance(metric, PerClassMetric))
    result = {
        'config': str(config), 'checkpoint': str(checkpoint), 'tta': tta,
        'summary': without_nan(summary),
        'classes': {name: without_nan(scores) for name, scores in metric.classes.items()},
    }
    if is_main_process():
        name = f'test_{Path(checkpoint).stem}{"_tta" if tta else ""}.json'
        write_json(Path(cfg.work_dir) / name, result)
    return result


def set_evaluator(cfg: Config, out: str | Path | None) -> None:
    """Let the config's ``IoUMetric`` keep the scores of classes; add one where it has none."""
    evaluators = cfg.test_evaluator
    evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    if not any(evaluator['type'] == 'IoUMetric' for evaluator in evaluators):
        evaluators.append({'type': 'IoUMetric'})
    dataset = cfg.test_dataloader.dataset
    prefix = (dataset.get('data_prefix') or {}).get('img_path')
    for evaluator in evaluators:
        if evaluator['type'] == 'IoUMetric':
            evaluator['type'] = 'PerClassMetric'
            if out is not None:
                evaluator['label_dir'] = str(out)
                evaluator['image_dir'] = prefix and str(
                    Path(dataset.get('data_root') or '') / prefix)
    cfg.test_evaluator = evaluators


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
