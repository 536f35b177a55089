"""Statistics of latent weights that oscillate: how many flip, how many may soon, histograms."""

from __future__ import annotations

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import latent_weights
from bhvit_seg.training.runner import model_of

from .latent_signs import channel_rows, latent_signs, pack, unpack
from .weight_figures import new_figure, save_figure, training_figure
from .weight_record import WeightRecord, bin_width, count_bins

STATE = 'weight_statistics'
PICTURE = 'weight_statistics.png'


@HOOKS.register_module()
class WeightStatisticsHook(Hook):
    """Sample the latent weights at intervals, in total and for each layer.

    A weight has flipped when its binary value differs from the one at the last sample; one that
    flipped an even number of times has not. It is near 0 when it is near its threshold, the mean of
    its channel, where it may flip soon. Histograms are of the latent weights themselves, on which
    the regularization acts.

    Samples go to the log and, as ``weights/flip_ratio`` and ``weights/near_zero`` (with the layer's
    name behind it for each layer), to mmengine's visualizer. ``weight_statistics.json`` in the work
    dir has the counts of the whole training, ``weight_statistics.png`` draws them, and the
    visualizer gets the same picture. All is kept in checkpoints, so a resumed run records what an
    uninterrupted one does. A model without binary layers trains without it.

    Args:
        interval (int): Iterations between samples. Defaults to 100.
        figure_interval (int): Iterations between histograms and pictures; there is one at the end
            too. Defaults to 1000.
        near_zero (float): Distance from the threshold below which a weight counts as near 0.
            Defaults to 0.005, ten steps of Adam at the paper's learning rate.

    Raises:
        UserError: An interval is not a whole number of at least 1, or ``near_zero`` not positive.
    """

    # After what moves weights, before checkpoints.
    priority = 'LOW'

    def __init__(self, interval: int = 100, figure_interval: int = 1000,
                 near_zero: float = 0.005) -> None:
        for name, value in (('interval', interval), ('figure_interval', figure_interval)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f'{name} of WeightStatisticsHook is {value!r}: give a number of '
                                'iterations, 1 or more')
        if not near_zero > 0:
            raise UserError(f'near_zero of WeightStatisticsHook is {near_zero!r}: give a positive '
                            'distance, such as 0.005')
        self.interval = interval
        self.figure_interval = figure_interval
        self.near_zero = near_zero
        self._weights: dict[str, Tensor] = {}
        self._signs: list[Tensor] = []
        self._record: WeightRecord | None = None
        self._resumed: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Remember the signs to compare with, or take those of the checkpoint.

        Raises:
            UserError: matplotlib is missing, which the pictures need.
        """
        new_figure(1, 1)
        self._weights = latent_weights(model_of(runner))
        self._record = WeightRecord(
            self.interval, self.near_zero, {n: w.numel() for n, w in self._weights.items()})
        self._signs = [latent_signs(weight) for weight in self._weights.values()]
        if not self._weights:
            runner.logger.info('the model has no binary layer: no statistics of latent weights')
        if self._resumed is None:
            return
        record = WeightRecord(**self._resumed['record'])
        if record.settings() == self._record.settings():
            self._record = record
            self._signs = [unpack(packed, signs).to(torch.int8) * 2 - 1
                           for packed, signs in zip(self._resumed['signs'], self._signs)]
        else:
            runner.logger.warning('statistics of latent weights start again: those of the '
                                  'checkpoint have other settings')
        self._resumed = None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None,
                         outputs=None) -> None:
        """Sample the weights, and draw them, when due."""
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
            picture = save_figure(training_figure(self._record), f'{runner.work_dir}/{PICTURE}')
            runner.visualizer.add_image('weight_statistics', picture, runner.iter + 1)

    def _sample(self, runner: Runner) -> None:
        signs = [latent_signs(weight) for weight in self._weights.values()]
        flipped = [(new != old).sum() for new, old in zip(signs, self._signs)]
        near = [count_near_threshold(w, self.near_zero) for w in self._weights.values()]
        self._signs = signs
        # One transfer from the device for all layers.
        flipped, near = torch.stack([torch.stack(flipped), torch.stack(near)]).tolist()
        record = self._record
        record.looks.append(dict(iteration=runner.iter + 1, flipped=flipped, near_zero=near))
        total = sum(record.layers.values())
        scalars = {'weights/flip_ratio': sum(flipped) / total,
                   'weights/near_zero': sum(near) / total}
        runner.logger.info(
            f'latent weights at iteration {runner.iter + 1}: '
            f'{scalars["weights/flip_ratio"]:.4%} flipped in {self.interval} iterations, '
            f'{scalars["weights/near_zero"]:.2%} within {self.near_zero:g} of their threshold')
        for (name, size), a, b in zip(record.layers.items(), flipped, near):
            scalars[f'weights/flip_ratio/{name}'] = a / size
            scalars[f'weights/near_zero/{name}'] = b / size
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def _add_histogram(self, iteration: int) -> None:
        weights = list(self._weights.values())
        width = bin_width(weights)
        counts = torch.stack([count_bins(weight, width) for weight in weights])
        self._record.histograms.append(
            dict(iteration=iteration, bin_width=width, counts=counts.sum(0).tolist()))
        self._record.layer_histograms = counts.tolist()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the record and the signs of the last sample into the checkpoint."""
        if self._weights:
            checkpoint[STATE] = dict(record=self._record.state(),
                                     signs=[pack(signs > 0) for signs in self._signs])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore them when a training is resumed, not when it begins from given weights."""
        if runner._resume:
            self._resumed = checkpoint.get(STATE)


def count_near_threshold(weight: Tensor, distance: float) -> Tensor:
    """Count the weights ``(out, ...)`` nearer than ``distance`` to the mean of their channel."""
    rows = channel_rows(weight)
    return (rows - rows.mean(1, keepdim=True)).abs_().lt(distance).sum()
