"""Checkpoints that survive a kill at any moment.

``mmengine.hooks.CheckpointHook`` writes in place and deletes the outdated checkpoint first. Here a
file appears under its name when it is whole, and outdated files are deleted last.
"""

from __future__ import annotations

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmseg.registry import HOOKS

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import remove_leftovers, write_bytes


class AtomicLocalBackend(LocalBackend):
    """mmengine's local backend with atomic writes and deferred removal."""

    def __init__(self) -> None:
        self.outdated: list[str] = []

    def put(self, obj: bytes, filepath) -> None:
        write_bytes(filepath, obj)

    def remove(self, filepath: str) -> None:
        self.outdated.append(filepath)

    def flush(self) -> None:
        while self.outdated:
            super().remove(self.outdated.pop())


register_backend('atomic', AtomicLocalBackend, force=True)


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that survives a SIGKILL at any moment, with the same arguments.

    With gradient accumulation a checkpoint is exact only between accumulations; other intervals
    raise a :class:`UserError`. ``backend_args`` defaults to atomic local files if ``out_dir`` is
    local.
    """

    def __init__(self, *args, out_dir=None, backend_args: dict | None = None, **kwargs) -> None:
        if backend_args is None and '://' not in str(out_dir or ''):
            backend_args = {'backend': 'atomic'}
        super().__init__(*args, out_dir=out_dir, backend_args=backend_args, **kwargs)

    def before_train(self, runner) -> None:
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        intervals = {} if self.by_epoch else {'the checkpoint interval': self.interval}
        if self.save_best and runner.val_loop is not None:
            # A new best score is stored by writing the last checkpoint again.
            intervals['train_cfg.val_interval'] = runner.val_interval
        for name, interval in intervals.items():
            if interval > 0 and interval % counts:
                raise UserError(
                    f'{name} is {interval}, but gradients are accumulated over {counts} '
                    'iterations (optim_wrapper.accumulative_counts) and would be lost on resuming: '
                    f'make it a multiple, such as {interval + counts - interval % counts}')
        super().before_train(runner)
        self._flush()
        if not self.by_epoch and self.file_backend.isfile(self._path(runner.iter)):
            # Resumed from it; a validation that is repeated now stores its best score there.
            self.last_ckpt = self._path(runner.iter)
        if is_main_process():
            for folder in {str(runner.work_dir), str(self.out_dir)}:
                for leftover in remove_leftovers(folder):
                    runner.logger.info(f'removed {leftover}, left unfinished by an earlier run')

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        """As in ``CheckpointHook``, but what is outdated is removed after the new one is there."""
        super()._save_checkpoint_with_step(runner, step, meta)
        self._flush()

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._flush()

    def _flush(self) -> None:
        if isinstance(self.file_backend, AtomicLocalBackend):
            self.file_backend.flush()

    def _path(self, step: int) -> str:
        return str(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step)))
