"""mmengine's runner, resumed from a checkpoint in memory; its model and its processes."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.weights import check_fit, state_dict_of


def model_of(runner: Runner) -> nn.Module:
    """Return the model without the wrapper of a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


class ResumingRunner(Runner):
    """A runner that may be given the content of a checkpoint, already read, as ``resumed``."""

    resumed: dict[str, Any] | None = None  # what is loaded next
    last_start = ''

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set processes up. Runners of one second share mmengine's log file and message hub."""
        while time.strftime('%Y%m%d_%H%M%S') == ResumingRunner.last_start:
            time.sleep(0.05)
        super().setup_env(env_cfg)
        ResumingRunner.last_start = self.timestamp

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict[str, Any]:
        """Load a checkpoint into the model, as ``Runner`` does; a given one has to fit exactly."""
        if self.resumed is None:
            return super().load_checkpoint(filename, *args, **kwargs)
        checkpoint, self.resumed = self.resumed, None
        model = model_of(self)
        check_fit(model, state_dict_of(checkpoint), filename)
        # Hooks may exchange weights and their moving average.
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model.load_state_dict(state_dict_of(checkpoint))
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint


def start_processes(cfg: Config, launcher: str) -> None:
    """Set the launcher; without a GPU, connect the processes by gloo, unlike mmengine."""
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
