"""Table and plot of the latency benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from bhvit_seg.fileio import write_atomically

COLOURS = {'packed': '#d1495b', 'torch': '#8d96a3', 'fp32': '#66a182', 'int8': '#2e86ab',
           'other': '#edae49'}
GROUPS = {'packed': 'bit-packed', 'torch': 'torch', 'fp32': 'other engines, fp32',
          'int8': 'other engines, int8', 'other': 'another network'}


def cells(record: dict[str, Any]) -> dict[tuple[int, int, int], list[dict[str, Any]]]:
    """Results by height, width and threads."""
    found: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for result in record['results']:
        found.setdefault((*result['size'], result['threads']), []).append(result)
    return found


def title_of(height: int, width: int, threads: int) -> str:
    return f'{height}×{width}, {threads} thread{"s" if threads > 1 else ""}'


def tables(record: dict[str, Any]) -> list[Table]:
    """A table for each image size and thread count."""
    made = []
    for key, results in cells(record).items():
        table = Table(title=title_of(*key), title_justify='left')
        table.add_column('')
        for heading in ('min, ms', 'median', 'p95', 'of packed', 'same labels', 'calls'):
            table.add_column(heading, justify='right')
        for r in results:
            ratio = '–' if r['ratio'] is None else f'{r["ratio"]:.2f}×'
            table.add_row(r['description'], f'{r["min_ms"]:.1f}', f'{r["median_ms"]:.1f}',
                          f'{r["p95_ms"]:.1f}', ratio, f'{100 * r["agreement"]:.2f} %',
                          str(r['calls']))
        made.append(table)
    return made


def plot(record: dict[str, Any], path: Path) -> None:
    """Draw bars of the minima, a panel for each image size and thread count.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    panels = cells(record)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    longest = max(map(len, panels.values()))
    figure = Figure(figsize=(6.5 * columns, rows * (0.9 + 0.32 * longest) + 0.8),
                    layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (key, results) in zip(axes, panels.items()):
        minima = [r['min_ms'] for r in results]
        axis.barh([r['description'] for r in results], minima,
                  color=[COLOURS[r['group']] for r in results])
        axis.set_xscale('log')
        axis.set_xlim(min(minima) / 2, max(minima) * 3.5)
        axis.invert_yaxis()
        axis.spines[['top', 'right']].set_visible(False)
        axis.set_title(title_of(*key), loc='left', fontsize=10)
        axis.set_xlabel('ms an image, minimum (logarithmic)', fontsize=8)
        axis.tick_params(labelsize=8)
        for i, r in enumerate(results):
            ms = f'{r["min_ms"]:.{0 if r["min_ms"] >= 100 else 1}f}'
            ratio = '' if r['ratio'] is None else f'  ({r["ratio"]:.1f}×)'
            axis.text(1.06 * r['min_ms'], i, f'{ms}{ratio}', va='center', fontsize=8)
    for axis in axes[len(panels):]:
        axis.set_visible(False)
    present = {r['group'] for r in record['results']}
    figure.legend(handles=[Patch(color=COLOURS[group], label=name)
                           for group, name in GROUPS.items() if group in present],
                  loc='outside lower center', ncols=len(present), fontsize=8, frameon=False)
    figure.suptitle(f'{Path(record["config"]).stem}\n{record["processor"]}', fontsize=10)
    with write_atomically(path) as partial:
        figure.savefig(partial, dpi=130)
