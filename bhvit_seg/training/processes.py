"""Distributed runs without a GPU, which mmengine does not start."""

from __future__ import annotations

import os

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
from mmengine.config import Config

from bhvit_seg.errors import UserError


def start_processes(cfg: Config, launcher: str) -> None:
    """Set the launcher; without a GPU, connect the processes through gloo.

    mmengine does the latter for GPUs alone: it binds every process to a CUDA device.
    """
    cfg.launcher = launcher
    if launcher == 'pytorch' and not torch.cuda.is_available():
        if 'RANK' not in os.environ:
            raise UserError('--launcher pytorch expects to be started by torchrun, as '
                            'tools/dist_train.sh does')
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        cfg.setdefault('model_wrapper_cfg', {
            'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False)})
