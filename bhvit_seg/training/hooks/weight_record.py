"""Counts of latent weights during a training (they add up over layers, exactly), file and plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bhvit_seg.fileio import write_atomically, write_text

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
    layer_histograms: list[list[int]] = field(default_factory=list)  # the last one by layers

    def iterations(self) -> np.ndarray:
        return np.array([look['iteration'] for look in self.looks], dtype=int)

    def shares(self, name: str) -> np.ndarray:
        """Return ``'flipped'`` or ``'near_zero'`` as fractions of all weights, one per sample."""
        counts = [sum(look[name]) for look in self.looks]
        return np.array(counts, dtype=float) / sum(self.layers.values())

    def write(self, work_dir: str | Path) -> None:
        write_text(Path(work_dir) / FILE, json.dumps(asdict(self), separators=(',', ':')) + '\n')

    def bins(self) -> int:
        """Return how many bins on each side of 0 hold nearly all weights of the last histogram."""
        sides = fold(self.histograms[-1]['counts'])
        return int(np.searchsorted(np.cumsum(sides), VISIBLE * sides.sum())) + 1

    def reach(self) -> float:
        """Return the largest ``|w|`` of the last histogram that is shown."""
        return self.bins() * self.histograms[-1]['bin_width']


def fold(counts: Sequence) -> np.ndarray:
    """Add the bins of ``−w`` to those of ``w``: ``(..., 2 · SIDE)`` to ``(..., SIDE)``."""
    counts = np.array(counts, dtype=float)
    return counts[..., SIDE:] + counts[..., SIDE - 1::-1]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, outside of any window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout='constrained')


def save_figure(figure: Figure, path: str | Path) -> np.ndarray:
    """Write a figure as PNG and return it as an RGB image ``(H, W, 3)`` of bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # once for both: drawing is most of the cost
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    with write_atomically(path) as partial:
        imsave(partial, pixels)
    return pixels


def label(axis: Axes, x: str, y: str) -> None:
    axis.spines[['top', 'right']].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)


def draw_histogram(axis: Axes, record: WeightRecord, colour: str = COLOURS[0]) -> None:
    last = record.histograms[-1]
    counts, width = np.array(last['counts'], dtype=float), last['bin_width']
    edges = np.arange(-SIDE, SIDE + 1) * width
    axis.stairs(counts / counts.sum() / width, edges, fill=True, color=colour)
    axis.set_xlim(-record.reach(), record.reach())
    label(axis, 'latent weight', 'density')


def draw_shares(axis: Axes, records: Sequence[WeightRecord], names: Sequence[str], share: str,
                **style) -> None:
    """Draw the fraction of weights that flipped, or are near 0, of each training."""
    for later, record, name, colour in zip(reversed(range(len(records))), records, names, COLOURS):
        # Broader than later curves, so that coinciding ones remain visible.
        axis.plot(record.iterations(), 100 * record.shares(share), label=name,
                  **{'color': colour, 'linewidth': 1.4 + 1.3 * later, **style})
    label(axis, 'iteration', {
        'flipped': f'flipped within {records[0].interval} iterations, % of weights',
        'near_zero': f'within {records[0].near_zero:g} of their threshold, % of weights'}[share])
    axis.set_ylim(0, 105 * max(max(record.shares(share)) for record in records) or None)


def training_figure(record: WeightRecord) -> Figure:
    """Draw one training: histogram and flips of all layers, and below them of each layer."""
    figure = new_figure(11, 8)
    (histogram, flips), (layers, layer_flips) = figure.subplots(2, 2)
    draw_histogram(histogram, record)
    histogram.set_title(f'latent weights after {record.histograms[-1]["iteration"]} iterations',
                        fontsize=10)
    # A row for each layer, from the first one at the top.
    style = dict(aspect='auto', interpolation='nearest', cmap='magma')
    counts = fold(record.layer_histograms)[:, :record.bins()]
    rows = len(counts) + 0.5
    layers.imshow(counts / np.maximum(counts.max(axis=1, keepdims=True), 1),
                  extent=(0, record.reach(), rows, 0.5), **style)
    layers.set_title('|w| of each layer, relative to its most frequent', fontsize=10)
    label(layers, '|w|', 'layer')
    if not record.looks:
        flips.set_axis_off()
        layer_flips.set_axis_off()
        return figure
    draw_shares(flips, [record], ['flipped'], 'flipped')
    near = flips.twinx()
    draw_shares(near, [record], ['near_zero'], 'near_zero', color=COLOURS[4], linewidth=1,
                linestyle='--')
    near.set_ylabel(f'within {record.near_zero:g} of the threshold, % (dashed)')
    near.spines['right'].set_visible(True)
    ends = record.iterations()
    shares = np.array([look['flipped'] for look in record.looks]) / [*record.layers.values()]
    image = layer_flips.imshow(100 * shares.T, vmin=0, extent=(
        ends[0] - record.interval, ends[-1], rows, 0.5), **style)
    layer_flips.set_title('flips of each layer, % of its weights', fontsize=10)
    label(layer_flips, 'iteration', 'layer')
    figure.colorbar(image, ax=layer_flips).ax.tick_params(labelsize=8)
    return figure
