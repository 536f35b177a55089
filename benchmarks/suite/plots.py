"""Pictures of a suite: scores with their spread, scores against costs, curves of training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite.report import describe_metric, file_bytes
from benchmarks.suite.runs import Run, read_curves
from benchmarks.suite.suite import SUMMARY
from bhvit_seg.fileio import write_atomically

DPI = 130


def _save(figure: Any, path: Path) -> None:
    with write_atomically(path) as partial:
        figure.savefig(partial, dpi=DPI)


def plot_scores(report: dict[str, Any], path: Path) -> None:
    """Draw means as bars, deviations as lines and runs as dots, a panel for each metric.

    Rows without any result are left out.
    """
    from matplotlib.figure import Figure

    metrics = report['metrics']
    rows = [row for row in report['rows'] if row['runs']] or report['rows']
    figure = Figure(figsize=(1.5 + 3.5 * len(metrics), 1.2 + 0.4 * len(rows)),
                    layout='constrained')
    panels = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axis, metric in zip(panels, metrics):
        for place, row in enumerate(rows):
            cell = row['scores'][metric]
            if cell['mean'] is None:
                continue
            axis.barh(place, cell['mean'], xerr=cell['deviation'], color='#b8cfe5',
                      error_kw={'ecolor': '#33475b', 'capsize': 3})
            values = [run[metric] for run in row['runs'].values() if run[metric] is not None]
            axis.plot(values, [place] * len(values), 'o', color='#d1495b', markersize=3)
        axis.set_yticks(range(len(rows)), [row['name'] for row in rows])
        axis.spines[['top', 'right']].set_visible(False)
        axis.set_xlabel(f'{describe_metric(metric)}, %')
    panels[0].invert_yaxis()
    figure.suptitle(report['title'])
    _save(figure, path)


def plot_costs(report: dict[str, Any], path: Path) -> None:
    """Draw the first metric of each row against its OPs and its bytes, packed where it can be."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    metric = report['metrics'][0]
    figure = Figure(figsize=(11, 4.5), layout='constrained')
    for axis, label, count in zip(figure.subplots(1, 2), ('OPs, millions', 'megabytes'),
                                  (lambda costs: costs['complexity']['ops'], file_bytes)):
        for row, marker in zip(report['rows'], itertools.cycle('os^vDPX*')):
            cell, costs = row['scores'][metric], row['costs']
            if cell['mean'] is None or costs is None:
                continue
            # Hollow, since rows that differ in training alone lie on one another.
            axis.errorbar(count(costs) / 1e6, cell['mean'], cell['deviation'], fmt=marker,
                          capsize=3, label=row['name'], markerfacecolor='none', markersize=8)
        axis.set_xscale('log')
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter('{x:g}')
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.15)
        axis.set_xlabel(label)
        axis.set_ylabel(f'{describe_metric(metric)}, %')
        axis.spines[['top', 'right']].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc='outside right center', fontsize=8)
    figure.suptitle(f'{report["title"]}, {"×".join(map(str, report["size"]))} pixels')
    _save(figure, path)


def mean_curve(curves: Sequence[dict[int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Iterations that all curves have, and the mean and the deviation there."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = np.array([[curve[step] for step in steps] for curve in curves])
    deviation = values.std(0, ddof=1) if len(curves) > 1 else np.zeros(len(steps))
    return np.array(steps), values.mean(0), deviation


def plot_curves(report: dict[str, Any], runs: Sequence[Run], path: Path) -> None:
    """Draw the loss and a mean score on the way, the mean over the seeds of each row."""
    from matplotlib.figure import Figure

    metric = next((metric for metric in report['metrics'] if metric in SUMMARY), 'mIoU')
    figure = Figure(figsize=(11, 4.5), layout='constrained')
    for axis, name, label in zip(figure.subplots(1, 2), ('loss', metric),
                                 ('loss (rows differ in its terms)',
                                  f'{describe_metric(metric)}, %')):
        for row in report['rows']:
            curves = [read_curves(run.folder).get(name, {}) for run in runs
                      if run.row.name == row['name']]
            curves = [curve for curve in curves if curve]
            if not curves:
                continue
            steps, mean, deviation = mean_curve(curves)
            line, = axis.plot(steps, mean, label=row['name'], linewidth=1)
            axis.fill_between(steps, mean - deviation, mean + deviation, alpha=0.2,
                              color=line.get_color())
        axis.set_xlabel('iteration')
        axis.set_ylabel(label)
        axis.spines[['top', 'right']].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    figure.suptitle(report['title'])
    _save(figure, path)


def write_plots(report: dict[str, Any], runs: Sequence[Run], folder: Path) -> None:
    """Write ``scores.png``, ``costs.png`` and ``curves.png``.

    Raises:
        ImportError: matplotlib is missing.
    """
    plot_scores(report, folder / 'scores.png')
    plot_costs(report, folder / 'costs.png')
    plot_curves(report, runs, folder / 'curves.png')
