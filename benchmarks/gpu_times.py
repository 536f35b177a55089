"""A training on a borrowed GPU: ``python -m benchmarks.gpu_times END OUT.pth COMMAND ...``.

``bhvit-seg COMMAND ...`` trains until the time END (seconds since 1970), with its cosine schedule
run through. Its length in iterations follows from the speed so far. Decoded images stay in memory,
and a BHViT backbone is a CUDA graph (``CudaGraphHook``). OUT.pth gets the weights alone, ready for
``init_cfg`` or ``export``.
"""

from __future__ import annotations

import functools
import math
import sys
import time

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
from mmseg.registry import LOOPS

from bhvit_seg import cli
from bhvit_seg.datasets import unlabelled
from bhvit_seg.datasets.transforms import loading
from bhvit_seg.fileio import write_atomically
from bhvit_seg.models.backbones.bhvit import BHViT
from bhvit_seg.models.weights import state_dict_of
from bhvit_seg.training.hooks import CudaGraphHook
from bhvit_seg.training.loops import ResumableTrainLoop
from bhvit_seg.training.runner import ResumingRunner, model_of

WARM_UP = 100  # iterations of growing learning rate
TIMED_FROM = 10


class TimedLoop(ResumableTrainLoop):
    """``ResumableTrainLoop`` that ends at a time."""

    end: float
    begun: float

    def run_iter(self, data_batch: dict) -> None:
        groups = self.runner.optim_wrapper.param_groups
        now, iteration = time.time(), self._iter
        if iteration <= TIMED_FROM:
            self.begun = now
        share = (now - self.begun) / max(self.end - self.begun, 1e-3)
        for group in groups:
            group['lr'] = (group['initial_lr'] * min(1, (iteration + 10) / WARM_UP)
                           * 0.5 * (1 + math.cos(math.pi * min(share, 1))))
        if share >= 1 and iteration > TIMED_FROM:
            self._max_iters = iteration + 1
        elif iteration % 20 == 0 and iteration > TIMED_FROM:
            self._max_iters = max(iteration + 2, round(
                TIMED_FROM + (iteration - TIMED_FROM) / max(share, 1e-6)))
        super().run_iter(data_batch)


def main(end: str, out: str, *command: str) -> int:
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    TimedLoop.end = float(end)
    loading.read_pixels = unlabelled.read_pixels = functools.cache(loading.read_pixels)
    loading.read_mask = functools.cache(loading.read_mask)
    LOOPS.register_module(name='ResumableTrainLoop', module=TimedLoop, force=True)
    train = ResumingRunner.train

    def train_and_keep(runner: ResumingRunner):
        if isinstance(model_of(runner).backbone, BHViT):
            runner.register_hook(CudaGraphHook())
        model = train(runner)
        dataset = runner.train_dataloader.dataset
        state = {name: value.cpu() for name, value in
                 state_dict_of({'state_dict': model_of(runner).state_dict()}).items()}
        with write_atomically(out) as partial:
            torch.save({'state_dict': state, 'meta': {
                'iter': runner.iter, 'dataset_meta': dict(dataset.metainfo)}}, partial)
        print(f'{out}: weights after {runner.iter} iterations')
        return model

    ResumingRunner.train = train_and_keep
    return cli.main(list(command))


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
