"""Train the model of a config, or resume an interrupted training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from bhvit_seg.datasets.checks import require_folders
from bhvit_seg.errors import UserError, explain_interrupt
from bhvit_seg.fileio import make_output_folder
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.config import (
    explain_config_errors,
    load_config,
    require_settings,
    score_classes,
    work_dir_of,
)
from bhvit_seg.training.config_check import require_sound, resumed_differences
from bhvit_seg.training.runner import ResumingRunner, start_processes


def train(config: str | Path, data_root: str | Path | None = None,
          work_dir: str | Path | None = None, resume: bool | str | Path | None = None,
          amp: bool = False, seed: int | None = None, cfg_options: dict[str, Any] | None = None,
          launcher: str = 'none') -> Runner:
    """Train the model of a config; return the runner after training.

    Args:
        config: Config file, or the name of a shipped config.
        data_root: Folder of the data. Defaults to the config's.
        work_dir: Folder of checkpoints and logs. Defaults to the config's, or ``work_dirs/<config
            name>``.
        resume: True: continue from the newest checkpoint in the work dir, or start from the
            beginning if there is none; a path: continue from that checkpoint. Defaults to the
            config's ``resume``, where ``load_from``, if given, is the checkpoint.
        amp: Train in automatic mixed precision (needs a GPU).
        seed: Random seed. Defaults to the config's.
        cfg_options: Settings that override the config's, by dotted key.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
    """
    cfg = load_config(config, cfg_options, data_root)
    require_settings(cfg, config, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    for split in ('train', 'val') if cfg.get('val_dataloader') else ('train',):
        require_folders(cfg, split)
    return run_training(cfg, work_dir_of(cfg, config, work_dir), resume, amp, seed, launcher)


def run_training(cfg: Config, work_dir: str | Path, resume: bool | str | Path | None = None,
                 amp: bool = False, seed: int | None = None, launcher: str = 'none') -> Runner:
    """Train by a complete config; arguments and errors as for :func:`train`."""
    cfg.work_dir = str(make_output_folder(work_dir, '--work-dir'))
    if amp:
        enable_amp(cfg)
    if seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
    warnings = require_sound(cfg, 'train')
    score_classes(cfg, 'val')
    start_processes(cfg, launcher)
    if resume is None:
        resume = cfg.get('resume', False) and (cfg.get('load_from') or True)
    checkpoint = choose_checkpoint(cfg, resume)
    if checkpoint is not None:
        warnings += resumed_differences(cfg, checkpoint)
    with explain_config_errors():
        runner = ResumingRunner.from_cfg(cfg)
        runner.resumed = checkpoint
        for warning in warnings:
            runner.logger.warning(warning)
        with contextlib.ExitStack() as stack:
            if runner.rank == 0:
                stack.enter_context(sole_training(runner.work_dir))
            stack.enter_context(explain_interrupt(lambda: how_to_resume(runner.work_dir)))
            runner.train()
    return runner


@contextlib.contextmanager
def sole_training(work_dir: str | Path) -> Iterator[None]:
    """Lock a work dir. The lock is this process's alone: it ends with it, however it does, even
    while processes that load data still run."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(Path(work_dir) / '.lock', 'w') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(f'another training runs in {work_dir}, and each would replace the '
                            "other's checkpoints: give another --work-dir") from None
        except OSError:  # a file system without locks
            pass
        yield


def how_to_resume(work_dir: str | Path) -> str:
    last = Path(work_dir) / 'last_checkpoint'
    if not last.is_file():
        return f'no checkpoint is in {work_dir} yet; the same command starts again'
    return (f'{Path(work_dir) / Path(last.read_text()).name} is kept; the same command with '
            '--resume continues from there')


def enable_amp(cfg: Config) -> None:
    if not torch.cuda.is_available():
        raise UserError('--amp needs a GPU, and torch finds none: train without it; on a CPU that '
                        'multiplies bfloat16, set optim_wrapper.type=BFloat16OptimWrapper')
    if cfg.optim_wrapper.type not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp is for optim_wrapper.type OptimWrapper, not '
                        f'{cfg.optim_wrapper.type}: leave it out')
    if cfg.optim_wrapper.type == 'OptimWrapper':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def choose_checkpoint(cfg: Config, resume: bool | str | Path) -> dict[str, Any] | None:
    """Set ``resume`` and ``load_from`` of the config; return the checkpoint to resume from."""
    checkpoint = None
    if resume is True:
        path, checkpoint = find_resumable(cfg.work_dir)
        if path is None:
            print(f'nothing to resume from in {cfg.work_dir}: training starts from the beginning')
    else:
        path = Path(resume) if resume else None
    cfg.resume = path is not None
    if path is None:
        if cfg.get('load_from') and '://' not in cfg.load_from:
            load_checkpoint_safely(cfg.load_from)
        return None
    checkpoint = checkpoint or load_checkpoint_safely(path)
    if 'optimizer' not in checkpoint or 'meta' not in checkpoint:
        raise UserError(
            f'{path} holds weights only, so training cannot go on from it: resume from an '
            'iter_*.pth, or start a new training from these weights with '
            f'--cfg-options load_from={path}')
    cfg.load_from = str(path)
    return checkpoint


def find_resumable(work_dir: str | Path) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the newest whole checkpoint of a training and its content: what ``last_checkpoint``
    names, else by number. Damaged ones are passed over, and named."""
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    named = Path(pointer.read_text().strip()) if pointer.is_file() else Path()
    numbered = [path for path in work_dir.glob('iter_*.pth') if path.stem[5:].isdigit()]
    numbered.sort(key=lambda path: int(path.stem[5:]), reverse=True)
    for path in dict.fromkeys([named, work_dir / named.name, *numbered]):
        if path.is_file():
            try:
                return path, load_checkpoint_safely(path)
            except UserError as error:
                print(f'passed over: {error}')
    return None, None
