"""The two plots of a suite: scores with their spread, and the first score against costs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benchmarks.suite.report import describe, file_bytes
from bhvit_seg.fileio import write_atomically

DPI = 130


def _save(figure: Any, path: Path) -> None:
    with write_atomically(path) as partial:
        figure.savefig(partial, dpi=DPI)


def plot_scores(report: dict[str, Any], path: Path) -> None:
    """Draw means as bars, deviations as lines and runs as dots, a panel for each metric."""
    from matplotlib.figure import Figure

    rows = [row for row in report['rows'] if row['runs']] or report['rows']
    figure = Figure(figsize=(1.5 + 3.5 * len(report['metrics']), 1.2 + 0.4 * len(rows)),
                    layout='constrained')
    panels = figure.subplots(1, len(report['metrics']), squeeze=False, sharey=True)[0]
    for axis, metric in zip(panels, report['metrics']):
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
        axis.set_xlabel(f'{describe(metric)}, %')
    panels[0].invert_yaxis()
    figure.suptitle(report['title'])
    _save(figure, path)


def plot_costs(report: dict[str, Any], path: Path) -> None:
    """Draw the first metric of each row against its OPs and its bytes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    metric = report['metrics'][0]
    figure = Figure(figsize=(11, 4.5), layout='constrained')
    for axis, label, count in zip(figure.subplots(1, 2), ('OPs, millions', 'megabytes'),
                                  (lambda costs: costs['ops'], file_bytes)):
        for row, marker in zip(report['rows'], itertools.cycle('os^vDPX*')):
            cell, costs = row['scores'][metric], row['costs']
            if cell['mean'] is None or costs is None:
                continue
            # Hollow, since rows that differ only in training coincide.
            axis.errorbar(count(costs) / 1e6, cell['mean'], cell['deviation'], fmt=marker,
                          capsize=3, label=row['name'], markerfacecolor='none', markersize=8)
        axis.set_xscale('log')
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter('{x:g}')
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.15)
        axis.set_xlabel(label)
        axis.set_ylabel(f'{describe(metric)}, %')
        axis.spines[['top', 'right']].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc='outside right center', fontsize=8)
    figure.suptitle(f'{report["title"]}, {"×".join(map(str, report["size"]))} pixels')
    _save(figure, path)
