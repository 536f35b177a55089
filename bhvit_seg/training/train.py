"""Training: what ``tools/train.py`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from bhvit_seg.datasets.checks import require_folders
from bhvit_seg.errors import UserError, explain_interrupt
from bhvit_seg.fileio import make_output_folder
from bhvit_seg.models.weights import (
    check_fit,
    find_resumable,
    load_checkpoint_safely,
    state_dict_of,
)
from bhvit_seg.training.config import (
    explain_config_errors,
    load_config,
    require_settings,
    work_dir_of,
)
from bhvit_seg.training.processes import start_processes


def train(config: str | Path,
          data_root: str | Path | None = None,
          work_dir: str | Path | None = None,
          resume: bool | str | Path | None = None,
          amp: bool = False,
          seed: int | None = None,
          cfg_options: dict[str, Any] | None = None,
          launcher: str = 'none') -> Runner:
    """Train the model of a config.

    Args:
        config: The config file.
        data_root: The folder of the data. Defaults to the config's.
        work_dir: Where checkpoints and logs go. Defaults to the config's, or
            ``work_dirs/<config name>``.
        resume: True goes on from the newest checkpoint in the work dir, and starts anew if there
            is none, from the weights of the config's ``load_from`` if it has that; a path goes on
            from that checkpoint. Defaults to what the config says: ``resume=True`` there takes
            ``load_from``, where it is given, for the checkpoint to go on from.
        amp: Train in automatic mixed precision (needs a GPU).
        seed: The random seed. Defaults to the config's.
        cfg_options: Settings that override the config's, by dotted key.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        Runner: The runner after training.

    Raises:
        UserError: Something given is wrong.
    """
    cfg = load_config(config, cfg_options, data_root)
    require_settings(cfg, config, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    for split in ('train', 'val') if cfg.get('val_cfg') else ('train',):
        require_folders(cfg, split)
    cfg.work_dir = str(make_output_folder(work_dir_of(cfg, config, work_dir), '--work-dir'))
    if amp:
        enable_amp(cfg)
    if seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
    return run_training(cfg, resume, launcher)


def run_training(cfg: Config, resume: bool | str | Path | None = None,
                 launcher: str = 'none') -> Runner:
    """Train what a whole config describes; arguments and errors as for :func:`train`."""
    start_processes(cfg, launcher)
    if resume is None:
        resume = cfg.get('resume', False) and (cfg.get('load_from') or True)
    checkpoint = choose_checkpoint(cfg, resume)
    with explain_config_errors():
        runner = Runner.from_cfg(cfg)
        if checkpoint is not None:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            check_fit(model, state_dict_of(load_checkpoint_safely(checkpoint)), checkpoint)
        with explain_interrupt(lambda: how_to_resume(runner.work_dir)):
            runner.train()
    return runner


def how_to_resume(work_dir: str | Path) -> str:
    """Return what is said when a training is interrupted."""
    last = Path(work_dir) / 'last_checkpoint'
    if not last.is_file():
        return f'no checkpoint is in {work_dir} yet; the same command starts again'
    return (f'{Path(work_dir) / Path(last.read_text()).name} is kept; the same command with '
            '--resume continues from there')


def enable_amp(cfg: Config) -> None:
    """Switch the optimizer wrapper to automatic mixed precision.

    Raises:
        UserError: There is no GPU, or the wrapper is of a kind that has no such variant.
    """
    if not torch.cuda.is_available():
        raise UserError('--amp needs a GPU, and torch finds none: train without it')
    if cfg.optim_wrapper.type not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp is for optim_wrapper.type OptimWrapper, not '
                        f'{cfg.optim_wrapper.type}: leave it out')
    if cfg.optim_wrapper.type == 'OptimWrapper':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def choose_checkpoint(cfg: Config, resume: bool | str | Path) -> Path | None:
    """Set ``resume`` and ``load_from`` of the config and return the checkpoint to resume from.

    Raises:
        UserError: The checkpoint that was named is missing, damaged or holds only weights.
    """
    if resume is True:
        checkpoint, passed_over = find_resumable(cfg.work_dir)
        for sentence in passed_over:
            print(f'passed over: {sentence}')
        if checkpoint is None:
            print(f'nothing to resume from in {cfg.work_dir}: training starts anew')
    else:
        checkpoint = Path(resume) if resume else None
    cfg.resume = checkpoint is not None
    if checkpoint is not None:
        content = load_checkpoint_safely(checkpoint)
        if 'optimizer' not in content or 'meta' not in content:
            raise UserError(
                f'{checkpoint} holds weights only, so training cannot go on from it: resume '
                'from an iter_*.pth, or start anew from these weights with '
                f'--cfg-options load_from={checkpoint}')
        cfg.load_from = str(checkpoint)
    elif cfg.get('load_from') and '://' not in cfg.load_from:
        load_checkpoint_safely(cfg.load_from)
    return checkpoint
