"""Counts of latent weights during a training (they add up over layers, exactly), file and plots."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bhvit_seg.fileio import write_text
from bhvit_seg.training.imitation import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = 'weight_statistics.json'
SIDE = 256  # bins of a histogram on each side of 0; the mean of |w| lies 16 to 32 bins from it
VISIBLE = 0.999  # histograms show this fraction of the weights; what lies further out is cut off
COLOURS = ('#2e86ab', '#d1495b', '#66a182', '#edae49', '#8d96a3')


@dataclass
class WeightRecord:
    """The counts of a training; lists over layers are in the order of ``layers``.

    Bin ``i`` of a histogram counts ``w`` in ``[i − SIDE, i − SIDE + 1)`` times its width; the
    outermost bins also what lies beyond.
    """

    interval: int  # iterations between samples
    near_zero: float  # distance from the threshold below which a weight counts as near 0
    layers: dict[str, int]  # number of weights by name
    # Samples: iteration, and for each layer the weights flipped since the last one and near_zero.
    looks: list[dict[str, Any]] = field(default_factory=list)
    # Of all layers together: iteration, bin_width and counts in 2 · SIDE bins.
    histograms: list[dict[str, Any]] = field(default_factory=list)

    def iterations(self) -> np.ndarray:
        return np.array([look['iteration'] for look in self.looks], dtype=int)

    def shares(self, name: str) -> np.ndarray:
        """Return ``'flipped'`` or ``'near_zero'`` as fractions of all weights, one per sample."""
        counts = [sum(look[name]) for look in self.looks]
        return np.array(counts, dtype=float) / sum(self.layers.values())

    def write(self, work_dir: str | Path) -> None:
        write_text(Path(work_dir) / FILE, json.dumps(asdict(self), separators=(',', ':')) + '\n')


def draw_histogram(axis: Axes, record: WeightRecord, colour: str = COLOURS[0]) -> None:
    last = record.histograms[-1]
    counts, width = np.array(last['counts'], dtype=float), last['bin_width']
    axis.stairs(counts / counts.sum() / width, np.arange(-SIDE, SIDE + 1) * width, fill=True,
                color=colour)
    sides = np.cumsum(counts[SIDE:] + counts[SIDE - 1::-1])
    reach = (np.searchsorted(sides, VISIBLE * sides[-1]) + 1) * width
    axis.set(xlabel='latent weight', ylabel='density', xlim=(-reach, reach))


def draw_shares(axis: Axes, record: WeightRecord, share: str, **style: Any) -> None:
    """Draw the fraction of weights that flipped, or are near 0, over the iterations."""
    axis.plot(record.iterations(), 100 * record.shares(share), **style)
    axis.set(xlabel='iteration', ylabel={
        'flipped': f'flipped within {record.interval} iterations, % of weights',
        'near_zero': f'within {record.near_zero:g} of their threshold, % of weights'}[share])
    axis.set_ylim(bottom=0)


def training_figure(record: WeightRecord) -> Figure:
    """Draw the last histogram of a training, and its flips."""
    figure = new_figure(10, 4)
    histogram, flips = figure.subplots(1, 2)
    draw_histogram(histogram, record)
    if record.looks:
        draw_shares(flips, record, 'flipped', color=COLOURS[0])
        draw_shares(flips.twinx(), record, 'near_zero', color=COLOURS[4], linestyle='--')
    return figure
