"""Iterative freezing of the binary weights that oscillate most.

After "Overcoming Oscillations in Quantization-Aware Training" (Nagel et al., arXiv 2203.11086),
but frequencies are counted in windows of steps, and a frozen weight keeps its distance from its
threshold, the mean of its channel, which moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import binary_layers
from bhvit_seg.training.runner import model_of
from bhvit_seg.training.schedule import ScheduledHook, Stage

from .weight_statistics import distances, positive

STATE = 'oscillation_freezing'
LONGEST = 127  # votes are summed in int8
# Least distance of a frozen weight from its threshold, relative to its channel's mean distance: a
# thousand times the rounding errors of either.
MARGIN = 1e-3


@HOOKS.register_module()
class OscillationFreezingHook(ScheduledHook):
    """Freeze weights whose sign flips often, at their more frequent sign.

    After each ``window`` steps, weights that flipped more than once and in more than a fraction
    ``threshold`` of the steps are frozen until training ends. With ``TrainingStagesHook``, counting
    begins once weights are binary and ends when all are frozen.

    Args:
        threshold: Fractions of steps, when counting begins and at the end; half a cosine between.
        begin: Fraction of training, 0 to 1, after which flips are counted.
        window: Steps of the optimizer in which flips are counted, 2 to 127.
    """

    # After the optimizer's step, before averages, statistics and checkpoints.
    priority = 'ABOVE_NORMAL'

    def __init__(self, threshold: Sequence[float] = (0.1, 0.01), begin: float = 0.5,
                 window: int = 100) -> None:
        if len(threshold) != 2 or not all(0 <= share <= 1 for share in (*threshold, begin)) or not (
                2 <= window <= LONGEST):
            raise UserError(f'OscillationFreezingHook got threshold={threshold}, begin={begin}, '
                            f'window={window}: give two fractions between 0 and 1, another one, '
                            f'and a number of steps from 2 to {LONGEST}')
        self.threshold = tuple(threshold)
        self.begin = begin
        self.window = window
        self._resumed: dict | None = None

    def before_train(self, runner: Runner) -> None:
        self._layers = binary_layers(model_of(runner))
        resumed = self._resumed or dict(steps=0, weights={})
        self._resumed, self._steps = None, resumed['steps']
        self._watched = {name: WatchedWeight(self._layers[name].weight, state)
                         for name, state in resumed['weights'].items()}

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        stage = self.schedule(runner).stage(runner.iter)
        if stage == Stage.FROZEN:
            return
        if not self._watched:
            if runner.iter + 1 > self.begin * runner.max_iters and stage != Stage.REAL:
                self._watched = {name: WatchedWeight(layer.weight)
                                 for name, layer in self._layers.items()}
            return
        if not runner.optim_wrapper.should_update():
            return  # gradients are being accumulated: no weight moved
        for watched in self._watched.values():
            watched.hold()
            watched.count()
        self._steps += 1
        if self._steps >= self.window:
            self._steps = 0
            self._freeze(runner)

    def _freeze(self, runner: Runner) -> None:
        threshold = self.threshold_at((runner.iter + 1) / runner.max_iters)
        for watched in self._watched.values():
            watched.freeze(max(threshold * self.window, 1))
        frozen = sum(int(watched.frozen.sum()) for watched in self._watched.values())
        total = sum(watched.frozen.numel() for watched in self._watched.values())
        runner.logger.info(f'{frozen} of {total} binary weights ({frozen / total:.3%}) are '
                           f'frozen at iteration {runner.iter + 1}, threshold {threshold:.4f}')
        runner.visualizer.add_scalars({'weights/frozen': frozen / total}, step=runner.iter + 1)

    def threshold_at(self, progress: float) -> float:
        first, last = self.threshold
        progress = (progress - self.begin) / (1 - self.begin) if self.begin < 1 else 1.0
        return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._watched:
            checkpoint[STATE] = dict(steps=self._steps, weights={
                name: watched.state() for name, watched in self._watched.items()})

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self._resumed = checkpoint.get(STATE)


class WatchedWeight:
    """Latent weights ``(out, ...)`` with flips in this window, frozen ones, and a state."""

    def __init__(self, weight: Tensor, state: dict[str, Tensor] | None = None) -> None:
        self.weight = weight
        self.signs = positive(weight)
        self.flips = torch.zeros_like(self.signs, dtype=torch.uint8)
        self.votes = torch.zeros_like(self.signs, dtype=torch.int8)
        self.frozen = torch.zeros_like(self.signs)
        # From the threshold, 0 where free.
        self.distance = torch.zeros_like(weight.detach().flatten(1))
        if state is not None:
            for name in ('flips', 'votes', 'frozen'):
                getattr(self, name).copy_(state[name])
            self.distance[self.frozen] = state['distance'].to(self.distance)

    def state(self) -> dict[str, Tensor]:
        """Return counts and what is frozen; weights give the signs."""
        return dict(flips=self.flips, votes=self.votes, frozen=self.frozen,
                    distance=self.distance[self.frozen])

    def count(self) -> None:
        """Count the weights that flipped since the last call, and the sign that each has."""
        before, self.signs = self.signs, positive(self.weight)
        self.flips += self.signs != before
        self.votes += self.signs.to(torch.int8).mul_(2).sub_(1)

    @torch.no_grad()
    def hold(self) -> None:
        """Restore the distance of frozen weights ``w_i = μ + d_i`` from the threshold, the mean of
        their channel: ``μ = (Σ free w + Σ d) / number of free``."""
        if not self.frozen.any():
            return
        rows = self.weight.flatten(1)
        free = rows.masked_fill(self.frozen, 0).sum(1, keepdim=True)
        num_free = self.frozen.logical_not().sum(1, keepdim=True)
        threshold = (free + self.distance.sum(1, keepdim=True)) / num_free
        rows = torch.where(self.frozen, threshold + self.distance, rows)
        self.weight.copy_(rows.view_as(self.weight))

    def freeze(self, limit: float) -> None:
        """Freeze weights with over ``limit`` flips, all but one of a channel; begin a window."""
        picked = (self.flips > limit) & ~self.frozen
        if picked.any():
            size = distances(self.weight).abs()
            frozen = self.frozen | picked
            full = frozen.all(1)
            farthest = size.masked_fill(self.frozen, -1).argmax(1)
            frozen[full, farthest[full]] = False
            side = torch.where(self.votes >= 0, 1, -1)
            size = torch.maximum(size, MARGIN * size.mean(1, keepdim=True))
            self.distance = torch.where(frozen & ~self.frozen, side * size, self.distance)
            self.frozen = frozen
            self.hold()
            self.signs = positive(self.weight)
        self.flips.zero_()
        self.votes.zero_()
