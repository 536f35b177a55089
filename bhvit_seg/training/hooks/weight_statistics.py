"""Statistics of latent weights: how many flip, how many are near their threshold, histograms."""

from __future__ import annotations

import math
from dataclasses import asdict

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import latent_weights
from bhvit_seg.training.imitation import save_figure
from bhvit_seg.training.runner import model_of

from .weight_record import SIDE, WeightRecord, training_figure

STATE = 'weight_statistics'
PICTURE = 'weight_statistics.png'


@HOOKS.register_module()
class WeightStatisticsHook(Hook):
    """Sample the latent weights at intervals, in total and for each layer.

    A weight has flipped when its binary value differs from the last sample's; it is near 0 when it
    is near its threshold, the mean of its channel. Samples go to the log, to mmengine's visualizer
    (``weights/flip_ratio``, ``weights/near_zero``, and with the name of each layer) and to
    ``weight_statistics.json`` and ``.png`` in the work dir.

    Args:
        interval: Iterations between samples.
        figure_interval: Iterations between histograms and plots; the last iteration has one too.
        near_zero: Distance from the threshold; the default is ten steps of Adam at the paper's
            learning rate.
    """

    priority = 'LOW'  # after what moves weights, before checkpoints

    def __init__(self, interval: int = 100, figure_interval: int = 1000,
                 near_zero: float = 0.005) -> None:
        if min(interval, figure_interval, near_zero) <= 0:
            raise UserError(f'WeightStatisticsHook got interval={interval}, figure_interval='
                            f'{figure_interval}, near_zero={near_zero}: all have to be positive')
        self.interval = interval
        self.figure_interval = figure_interval
        self.near_zero = near_zero
        self._resumed: dict | None = None

    def before_train(self, runner: Runner) -> None:
        self._weights = latent_weights(model_of(runner))
        self._signs = [positive(weight) for weight in self._weights.values()]
        settings = dict(interval=self.interval, near_zero=self.near_zero,
                        layers={name: weight.numel() for name, weight in self._weights.items()})
        self._record = WeightRecord(**settings)
        resumed, self._resumed = self._resumed, None
        # With other settings statistics start again.
        if resumed and settings.items() <= resumed['record'].items():
            self._record = WeightRecord(**resumed['record'])
            self._signs = [old.to(new.device) for old, new in zip(resumed['signs'], self._signs)]

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        if not self._weights:
            return
        sampling = self.every_n_train_iters(runner, self.interval)
        drawing = (self.every_n_train_iters(runner, self.figure_interval)
                   or self.is_last_train_iter(runner))
        if sampling:
            self._sample(runner)
        if drawing:
            self._add_histogram(runner.iter + 1)
        if (sampling or drawing) and is_main_process():
            self._record.write(runner.work_dir)
        if drawing and is_main_process():
            save_figure(training_figure(self._record), f'{runner.work_dir}/{PICTURE}')

    def _sample(self, runner: Runner) -> None:
        weights, layers = self._weights.values(), self._record.layers
        before, self._signs = self._signs, [positive(weight) for weight in weights]
        flipped = [(new != old).sum() for new, old in zip(self._signs, before)]
        near = [count_near_threshold(weight, self.near_zero) for weight in weights]
        # One transfer from the device for all layers.
        flipped, near = torch.stack([torch.stack(flipped), torch.stack(near)]).tolist()
        self._record.looks.append(dict(iteration=runner.iter + 1, flipped=flipped, near_zero=near))
        scalars = {}
        for name, counts in (('weights/flip_ratio', flipped), ('weights/near_zero', near)):
            scalars[name] = sum(counts) / sum(layers.values())
            scalars.update({f'{name}/{layer}': count / size
                            for (layer, size), count in zip(layers.items(), counts)})
        runner.logger.info(
            f'latent weights at iteration {runner.iter + 1}: '
            f'{scalars["weights/flip_ratio"]:.4%} flipped in {self.interval} iterations, '
            f'{scalars["weights/near_zero"]:.2%} within {self.near_zero:g} of their threshold')
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def _add_histogram(self, iteration: int) -> None:
        weights = list(self._weights.values())
        width = bin_width(weights)
        counts = torch.stack([count_bins(weight, width) for weight in weights]).sum(0)
        self._record.histograms.append(
            dict(iteration=iteration, bin_width=width, counts=counts.tolist()))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._weights:
            checkpoint[STATE] = dict(record=asdict(self._record), signs=self._signs)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:  # not where it begins from given weights
            self._resumed = checkpoint.get(STATE)


def positive(weight: Tensor) -> Tensor:
    """Return which weights ``(out, ...)`` binarize to +1, (out, inputs) bool."""
    rows = weight.detach().flatten(1)
    return rows >= rows.mean(1, keepdim=True)


def count_near_threshold(weight: Tensor, distance: float) -> Tensor:
    """Count the weights ``(out, ...)`` nearer than ``distance`` to the mean of their channel."""
    rows = weight.detach().flatten(1)
    return (rows - rows.mean(1, keepdim=True)).abs_().lt(distance).sum()


def bin_width(weights: list[Tensor]) -> float:
    """Return a power of two as the width of bins, see ``SIDE``."""
    total = torch.stack([weight.detach().float().abs().sum() for weight in weights]).sum().item()
    mean = total / sum(weight.numel() for weight in weights)
    return 2.0 ** (math.floor(math.log2(mean)) - 4) if mean > 0 and math.isfinite(mean) else 1.0


def count_bins(weight: Tensor, width: float) -> Tensor:
    """Count the weights in each bin, ``(2 · SIDE,)``; powers of two as widths avoid rounding."""
    bins = (weight.detach().float().flatten() / width).floor_().clamp_(-SIDE, SIDE - 1)
    return torch.bincount(bins.add_(SIDE).long(), minlength=2 * SIDE)
