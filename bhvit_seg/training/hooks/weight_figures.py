"""Pictures of latent weights: histograms, flips, and both for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_atomically

from .weight_record import SIDE, WeightRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ('#2e86ab', '#d1495b', '#66a182', '#edae49', '#8d96a3')
# Histograms show this fraction of the weights; what lies further out is cut off.
VISIBLE = 0.999


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, which no window will show.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('pictures need matplotlib, which is not installed: pip install '
                        'matplotlib') from error
    figure = Figure(figsize=(width, height), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> np.ndarray:
    """Write a figure as PNG and return it as an RGB image ``(H, W, 3)`` of bytes.

    Drawn once for both: drawing is most of the cost.
    """
    from matplotlib.image import imsave

    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    with write_atomically(path) as partial:
        imsave(partial, pixels)
    return pixels


def visible_bins(record: WeightRecord) -> int:
    """Bins on each side of 0 that hold nearly all weights of the last histogram."""
    counts = np.array(record.histograms[-1]['counts'], dtype=float)
    sides = counts[SIDE:] + counts[SIDE - 1::-1]
    return int(np.searchsorted(np.cumsum(sides), VISIBLE * sides.sum())) + 1


def reach(record: WeightRecord) -> float:
    """The largest ``|w|`` that is shown of the last histogram."""
    return visible_bins(record) * record.histograms[-1]['bin_width']


def draw_histogram(axis: Axes, record: WeightRecord, colour: str = COLOURS[0]) -> None:
    """Draw the last histogram of all layers together, as a density."""
    last = record.histograms[-1]
    counts, width = np.array(last['counts'], dtype=float), last['bin_width']
    edges = np.arange(-SIDE, SIDE + 1) * width
    axis.stairs(counts / counts.sum() / width, edges, fill=True, color=colour)
    axis.set_xlim(-reach(record), reach(record))
    axis.set_xlabel('latent weight')
    axis.set_ylabel('density')
    plain(axis)


def draw_shares(axis: Axes, records: Sequence[WeightRecord], names: Sequence[str],
                share: str) -> None:
    """Draw the fraction of weights that flipped, or are near 0, of each training."""
    for later, record, name, colour in zip(reversed(range(len(records))), records, names, COLOURS):
        # Broader under those to come, so that it can be seen where curves coincide.
        axis.plot(record.iterations(), 100 * record.shares(share), color=colour, label=name,
                  linewidth=1.4 + 1.3 * later)
    first = records[0]
    axis.set_xlabel('iteration')
    axis.set_ylabel({
        'flipped': f'flipped within {first.interval} iterations, % of weights',
        'near_zero': f'within {first.near_zero:g} of their threshold, % of weights'}[share])
    axis.set_ylim(0, 105 * max(max(record.shares(share)) for record in records) or None)
    plain(axis)


def plain(axis: Axes) -> None:
    axis.spines[['top', 'right']].set_visible(False)
    small(axis)


def small(axis: Axes) -> None:
    axis.tick_params(labelsize=8)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_fontsize(9)


def training_figure(record: WeightRecord) -> Figure:
    """Draw one training: histogram and flips of all layers, and below them of each layer."""
    figure = new_figure(11, 8)
    top, bottom = figure.subplots(2, 2)
    draw_histogram(top[0], record)
    top[0].set_title(f'latent weights after {record.histograms[-1]["iteration"]} iterations',
                     fontsize=10)
    draw_layer_histograms(bottom[0], record)
    if record.looks:
        draw_shares(top[1], [record], ['flipped'], 'flipped')
        near = top[1].twinx()
        near.plot(record.iterations(), 100 * record.shares('near_zero'), color=COLOURS[4],
                  linewidth=1, linestyle='--')
        near.set_ylabel(f'within {record.near_zero:g} of the threshold, % (dashed)')
        near.set_ylim(0, 105 * max(record.shares('near_zero')) or None)
        near.spines['top'].set_visible(False)
        small(near)
        draw_layer_flips(bottom[1], record)
    else:
        top[1].set_axis_off()
        bottom[1].set_axis_off()
    return figure


def draw_layer_histograms(axis: Axes, record: WeightRecord) -> None:
    """Draw a row for each layer, from the first one at the top: where its ``|w|`` lie."""
    counts = np.array(record.layer_histograms, dtype=float)
    folded = (counts[:, SIDE:] + counts[:, SIDE - 1::-1])[:, :visible_bins(record)]
    folded /= np.maximum(folded.max(axis=1, keepdims=True), 1)
    axis.imshow(folded, aspect='auto', interpolation='nearest', cmap='magma',
                extent=(0, reach(record), len(folded) + 0.5, 0.5))
    axis.set_title('|w| of each layer, relative to its most frequent', fontsize=10)
    axis.set_xlabel('|w|')
    axis.set_ylabel('layer')
    small(axis)


def draw_layer_flips(axis: Axes, record: WeightRecord) -> None:
    """Draw a row for each layer, from the first one at the top: how many weights flipped when."""
    shares = 100 * record.layer_shares('flipped').T
    ends = record.iterations()
    image = axis.imshow(shares, aspect='auto', interpolation='nearest', cmap='magma', vmin=0,
                        extent=(ends[0] - record.interval, ends[-1], len(shares) + 0.5, 0.5))
    axis.set_title('flips of each layer, % of its weights', fontsize=10)
    axis.set_xlabel('iteration')
    axis.set_ylabel('layer')
    small(axis)
    axis.figure.colorbar(image, ax=axis).ax.tick_params(labelsize=8)
