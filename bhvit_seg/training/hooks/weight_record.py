"""Counts of latent weights during a training, and the file that keeps them.

Counts, not fractions: they add up over layers and compare exactly.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bhvit_seg.errors import UserError, first_line
from bhvit_seg.fileio import write_text

FILE = 'weight_statistics.json'
# Bins of a histogram on each side of 0; the mean of |w| lies 16 to 32 bins from it.
SIDE = 256


@dataclass
class WeightRecord:
    """The counts of a training, all lists over layers in the order of ``layers``.

    Attributes:
        interval: Iterations between samples.
        near_zero: Distance from the threshold below which a weight counts as near 0.
        layers: Number of weights by name of the layer.
        looks: A dict for each sample: its ``iteration``, and for each layer the weights ``flipped``
            since the sample before, and those ``near_zero``.
        histograms: A dict each: ``iteration``, ``bin_width``, and the ``counts`` of all layers
            together in ``2 · SIDE`` bins. Bin ``i`` holds ``w`` in ``[i − SIDE, i − SIDE + 1)``
            times the width, the outermost also what lies beyond.
        layer_histograms: Counts of the last histogram for each layer.
    """

    interval: int
    near_zero: float
    layers: dict[str, int]
    looks: list[dict[str, Any]] = field(default_factory=list)
    histograms: list[dict[str, Any]] = field(default_factory=list)
    layer_histograms: list[list[int]] = field(default_factory=list)

    def settings(self) -> tuple:
        """What two records have in common if one may go on where the other ends."""
        return self.interval, self.near_zero, self.layers

    def iterations(self) -> np.ndarray:
        """The iterations of the samples."""
        return np.array([look['iteration'] for look in self.looks], dtype=int)

    def shares(self, name: str) -> np.ndarray:
        """``'flipped'`` or ``'near_zero'`` as fractions of all weights, one a sample."""
        counts = [sum(look[name]) for look in self.looks]
        return np.array(counts, dtype=float) / sum(self.layers.values())

    def layer_shares(self, name: str) -> np.ndarray:
        """The same for each layer, ``(samples, layers)``."""
        counts = np.array([look[name] for look in self.looks], dtype=float)
        return counts.reshape(len(self.looks), -1) / np.array(list(self.layers.values()))

    def last_tenth(self) -> np.ndarray:
        """Whether each sample lies in the last tenth of the record; the last one does."""
        iterations = self.iterations()
        return iterations > 0.9 * iterations[-1]

    def state(self) -> dict[str, Any]:
        """The record as numbers, strings, lists and dicts."""
        return asdict(self)

    def write(self, work_dir: str | Path) -> None:
        """Write the record into a work dir."""
        write_text(Path(work_dir) / FILE, json.dumps(self.state(), separators=(',', ':')) + '\n')


def read_record(work_dir: str | Path) -> WeightRecord:
    """Read the record of a training from its work dir.

    Raises:
        UserError: There is none, it is damaged, or nothing was recorded yet.
    """
    path = Path(work_dir) / FILE
    if not path.is_file():
        raise UserError(f'no {FILE} in {work_dir}: give the work dir of a training with '
                        'WeightStatisticsHook')
    try:
        record = WeightRecord(**json.loads(path.read_text(encoding='utf-8')))
        looked = record.shares('flipped').size and record.layer_shares('near_zero').size
        drawn = [len(histogram['counts']) == 2 * SIDE for histogram in record.histograms]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f'{path} is not a record of WeightStatisticsHook or is damaged '
                        f'({first_line(error)}): resuming the training writes it again') from error
    if not looked or not drawn or not all(drawn):
        raise UserError(f'{path} has no sample with a histogram yet: train longer, or '
                        'lower interval and figure_interval of WeightStatisticsHook')
    return record


def bin_width(weights: list[Tensor]) -> float:
    """Return the width of bins that suit the weights: a power of two, see ``SIDE``."""
    total = torch.stack([weight.detach().float().abs().sum() for weight in weights]).sum().item()
    mean = total / sum(weight.numel() for weight in weights)
    if not (mean > 0 and math.isfinite(mean)):
        return 1.0
    return 2.0 ** (math.floor(math.log2(mean)) - 4)


def count_bins(weight: Tensor, width: float) -> Tensor:
    """Count the weights in each bin, ``(2 · SIDE,)`` on the device of the weights.

    The width is a power of two, so no rounding puts a weight into the wrong bin.
    """
    bins = (weight.detach().float().flatten() / width).floor_().clamp_(-SIDE, SIDE - 1)
    return torch.bincount(bins.add_(SIDE).long(), minlength=2 * SIDE)
