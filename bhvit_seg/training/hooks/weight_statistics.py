"""Statistics of latent weights: how many flip, how many are near their threshold, histograms."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_text
from bhvit_seg.models.layers import latent_weights
from bhvit_seg.training.imitation import new_figure, save_figure
from bhvit_seg.training.runner import model_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATE = 'weight_statistics'
FILE, PICTURE = f'{STATE}.json', f'{STATE}.png'
SIDE = 256  # bins of a histogram on each side of 0; the mean of |w| lies 16 to 32 bins from it
VISIBLE = 0.999  # pictures show this fraction of the weights; what lies further out is cut off


@HOOKS.register_module()
class WeightStatisticsHook(Hook):
    """Sample the latent weights at intervals, in total and for each layer.

    A weight has flipped when its binary value differs from the last sample's; it is near 0 when it
    is near its threshold, the mean of its channel. Samples go to the log, to mmengine's visualizer
    (``weights/flip_ratio``, ``weights/near_zero``, and with the name of each layer) and to
    ``weight_statistics.json`` and ``.png`` in the work dir. The JSON file holds counts: ``looks``
    by layer in the order of ``layers``, and ``histograms`` of all layers together; bin ``i`` counts
    ``w`` in ``[i − SIDE, i − SIDE + 1)`` times its width, the outermost also what lies beyond.

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
        self._record = dict(settings, looks=[], histograms=[])
        resumed, self._resumed = self._resumed, None
        # With other settings statistics start again.
        if resumed and settings.items() <= resumed['record'].items():
            self._record = resumed['record']
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
            weights = list(self._weights.values())
            width = bin_width(weights)
            counts = torch.stack([count_bins(weight, width) for weight in weights]).sum(0)
            self._record['histograms'].append(
                dict(iteration=runner.iter + 1, bin_width=width, counts=counts.tolist()))
        if (sampling or drawing) and is_main_process():
            write_text(f'{runner.work_dir}/{FILE}', json.dumps(self._record) + '\n')
        if drawing and is_main_process():
            figure = new_figure(10, 4)
            histogram, flips = figure.subplots(1, 2)
            draw_histogram(histogram, self._record)
            draw_shares(flips, self._record, 'flipped')
            save_figure(figure, f'{runner.work_dir}/{PICTURE}')

    def _sample(self, runner: Runner) -> None:
        weights, layers = self._weights.values(), self._record['layers']
        before, self._signs = self._signs, [positive(weight) for weight in weights]
        flipped = [(new != old).sum() for new, old in zip(self._signs, before)]
        near = [(distances(weight).abs() < self.near_zero).sum() for weight in weights]
        # One transfer from the device for all layers.
        flipped, near = torch.stack([torch.stack(flipped), torch.stack(near)]).tolist()
        self._record['looks'].append(
            dict(iteration=runner.iter + 1, flipped=flipped, near_zero=near))
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

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._weights:
            checkpoint[STATE] = dict(record=self._record, signs=self._signs)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:  # not where it begins from given weights
            self._resumed = checkpoint.get(STATE)


def distances(weight: Tensor) -> Tensor:
    """Return weights ``(out, ...)`` less their thresholds, the means of channels, (out, inputs)."""
    rows = weight.detach().flatten(1)
    return rows - rows.mean(1, keepdim=True)


def positive(weight: Tensor) -> Tensor:
    """Return which weights ``(out, ...)`` binarize to +1, (out, inputs) bool."""
    rows = weight.detach().flatten(1)
    return rows >= rows.mean(1, keepdim=True)


def bin_width(weights: list[Tensor]) -> float:
    """Return a power of two as the width of bins, see ``SIDE``."""
    total = torch.stack([weight.detach().float().abs().sum() for weight in weights]).sum().item()
    mean = total / sum(weight.numel() for weight in weights)
    return 2.0 ** (math.floor(math.log2(mean)) - 4) if mean > 0 and math.isfinite(mean) else 1.0


def count_bins(weight: Tensor, width: float) -> Tensor:
    """Count the weights in each bin, ``(2 · SIDE,)``; powers of two as widths avoid rounding."""
    bins = (weight.detach().float().flatten() / width).floor_().clamp_(-SIDE, SIDE - 1)
    return torch.bincount(bins.add_(SIDE).long(), minlength=2 * SIDE)


def iterations_of(record: Mapping[str, Any]) -> np.ndarray:
    return np.array([look['iteration'] for look in record['looks']], dtype=int)


def shares_of(record: Mapping[str, Any], name: str) -> np.ndarray:
    """Return ``'flipped'`` or ``'near_zero'`` as fractions of all weights, one per sample."""
    return np.array([sum(look[name]) for look in record['looks']]) / sum(record['layers'].values())


def draw_histogram(axis: Axes, record: Mapping[str, Any], **style: Any) -> None:
    last = record['histograms'][-1]
    counts, width = np.array(last['counts'], dtype=float), last['bin_width']
    axis.stairs(counts / counts.sum() / width, np.arange(-SIDE, SIDE + 1) * width, fill=True,
                **style)
    sides = np.cumsum(counts[SIDE:] + counts[SIDE - 1::-1])
    reach = (np.searchsorted(sides, VISIBLE * sides[-1]) + 1) * width
    axis.set(xlabel='latent weight', ylabel='density', xlim=(-reach, reach))


def draw_shares(axis: Axes, record: Mapping[str, Any], name: str, **style: Any) -> None:
    """Draw the fraction of weights that flipped, or are near 0, over the iterations."""
    axis.plot(iterations_of(record), 100 * shares_of(record, name), **style)
    axis.set(xlabel='iteration', ylabel={
        'flipped': f'flipped within {record["interval"]} iterations, % of weights',
        'near_zero': f'within {record["near_zero"]:g} of their threshold, % of weights'}[name])
    axis.set_ylim(bottom=0)
