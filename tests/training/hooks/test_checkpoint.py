import contextlib
import io
import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import MessageHub, MMLogger

from bhvit_seg.errors import UserError
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.hooks.checkpoint import ResumableCheckpointHook
from bhvit_seg.training.train import find_resumable

NUMBERS = itertools.count()


class Runner:
    """As much of a runner as the hook touches; a checkpoint holds the iteration and the hub."""

    def __init__(self, work_dir: Path, counts: int = 1, val_interval: int = 2) -> None:
        self.work_dir = str(work_dir)
        self.epoch, self.iter, self.max_iters = 0, 0, 100
        self.message_hub = MessageHub.get_instance(f'checkpoint-test-{next(NUMBERS)}')
        self.logger = MMLogger.get_instance('checkpoint-test', log_level='ERROR')
        self.optim_wrapper = SimpleNamespace(_accumulative_counts=counts)
        self.val_loop, self.val_interval = object(), val_interval

    def save_checkpoint(self, out_dir, filename, *args, backend_args=None, meta=None, **kwargs):
        content = io.BytesIO()
        torch.save({'iter': meta['iter'], 'message_hub': self.message_hub.state_dict()}, content)
        path = os.path.join(out_dir, filename)
        get_file_backend(path, backend_args=backend_args).put(content.getvalue(), path)


def run_to(work_dir: Path, iterations: int) -> None:
    """Train from the newest checkpoint: one every second iteration, validation every fourth."""
    runner = Runner(work_dir)
    hook = ResumableCheckpointHook(interval=2, by_epoch=False, max_keep_ckpts=1, save_best='mIoU')
    _, checkpoint = find_resumable(work_dir)
    if checkpoint:
        runner.iter = checkpoint['iter']
        runner.message_hub.load_state_dict(checkpoint['message_hub'])
    hook.before_train(runner)
    while runner.iter < iterations:
        hook.after_train_iter(runner, batch_idx=runner.iter)
        runner.iter += 1
        if runner.iter % 4 == 0:
            hook.after_val_epoch(runner, {'mIoU': float(runner.iter)})


def mortal(operation, operations, number: int):
    """Return ``operation``, ending the process instead when it is the given one."""

    def perform(*args, **kwargs):
        if next(operations) == number:
            os._exit(9)
        return operation(*args, **kwargs)

    return perform


def die_at(number: int, work_dir: Path) -> bool:
    """Run in a process that ends itself at the given file operation; tell whether it did."""
    child = os.fork()
    if not child:
        operations = itertools.count()
        for name in ('replace', 'remove', 'fsync'):
            setattr(os, name, mortal(getattr(os, name), operations, number))
        try:
            run_to(work_dir, 9)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_dying_at_any_file_operation_loses_no_checkpoint(tmp_path):
    undisturbed = tmp_path / 'undisturbed'
    run_to(undisturbed, 9)
    expected = sorted(path.name for path in undisturbed.iterdir())
    assert expected == ['best_mIoU_iter_8.pth', 'iter_8.pth', 'last_checkpoint']
    for number in itertools.count():
        work_dir = tmp_path / str(number)
        died = die_at(number, work_dir)
        for path in work_dir.glob('*.pth'):
            load_checkpoint_safely(path)
        newest, _ = find_resumable(work_dir)
        # Two operations write a file: nothing can be there before the first is done.
        assert newest is not None or number < 2
        run_to(work_dir, 9)
        if not list(work_dir.glob('best_*')) == [work_dir / 'best_mIoU_iter_8.pth']:
            # The loop, which is not here, repeats a validation that was cut off.
            assert died and load_checkpoint_safely(work_dir / 'iter_8.pth')['iter'] == 8
        assert {'iter_8.pth', 'last_checkpoint'} <= {path.name for path in work_dir.iterdir()}
        # One that was outdated when it died may be left.
        assert len(list(work_dir.glob('iter_*.pth'))) <= 2
        assert not list(work_dir.glob('.*'))
        if not died:
            break
    assert number > 10


@pytest.mark.parametrize('interval, val_interval, counts, words', [
    (3, 4, 2, 'checkpoint interval is 3.* 4$'), (4, 6, 4, 'val_interval is 6.* 8$'),
    (4, 4, 2, None)])
def test_interval_between_accumulations_is_refused(interval, val_interval, counts, words,
                                                   tmp_path):
    hook = ResumableCheckpointHook(interval=interval, by_epoch=False, save_best='mIoU')
    with pytest.raises(UserError, match=words) if words else contextlib.nullcontext():
        hook.before_train(Runner(tmp_path, counts, val_interval))
