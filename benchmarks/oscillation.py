"""Oscillation of latent weights in several trainings: ``python -m benchmarks.oscillation``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bhvit_seg.errors import UserError, command, first_line
from bhvit_seg.fileio import make_output_folder, write_json
from bhvit_seg.training.hooks.weight_statistics import (
    FILE,
    SIDE,
    draw_histogram,
    draw_shares,
    iterations_of,
    shares_of,
)
from bhvit_seg.training.imitation import new_figure, save_figure

COLOURS = ('#2e86ab', '#d1495b', '#66a182', '#edae49', '#8d96a3')


def compare_oscillation(work_dirs: Sequence[str | Path],
                        names: Sequence[str] | None = None,
                        out: str | Path = 'oscillation') -> dict[str, dict[str, Any]]:
    """Draw the weights and the flips of trainings side by side, and tell the figures.

    Writes ``weight_histograms.png``, ``weight_flips.png`` and ``oscillation.json``.

    Args:
        work_dirs: Work dirs of trainings with ``WeightStatisticsHook``, at most five.
        names: What to call them. Defaults to the names of the folders.
        out: The folder to write to.

    Returns:
        The numbers of :func:`summarize` by name.

    Raises:
        UserError: A folder has no record, the trainings were looked at differently, names are
            missing or the same, or there are too many.
    """
    if not 1 <= len(work_dirs) <= len(COLOURS):
        raise UserError(f'{len(work_dirs)} work dirs were given: give 1 to {len(COLOURS)}')
    names = list(names) if names else [Path(folder).resolve().name for folder in work_dirs]
    if len(names) != len(work_dirs):
        raise UserError(f'--names has {len(names)} names for {len(work_dirs)} work dirs: give one '
                        'each')
    if len(set(names)) != len(names):
        raise UserError(f'two trainings are called {max(names, key=names.count)}: give each '
                        'a name of its own with --names')
    records = [read_record(folder) for folder in work_dirs]
    for folder, record in zip(work_dirs, records):
        for setting in ('interval', 'near_zero'):
            values = records[0][setting], record[setting]
            if values[0] != values[1]:
                raise UserError(
                    f'{work_dirs[0]} and {folder} cannot be compared: {setting} of their '
                    f'WeightStatisticsHook is {values[0]:g} and {values[1]:g}; train with the same')
    folder = make_output_folder(out, '--out')
    save_figure(histogram_figure(records, names), folder / 'weight_histograms.png')
    save_figure(flip_figure(records, names), folder / 'weight_flips.png')
    results = {name: summarize(record) for name, record in zip(names, records)}
    write_json(folder / 'oscillation.json', results)
    return results


def read_record(work_dir: str | Path) -> dict[str, Any]:
    """Read the record of a training from its work dir.

    Raises:
        UserError: There is none, it is damaged, or nothing was recorded yet.
    """
    path = Path(work_dir) / FILE
    if not path.is_file():
        raise UserError(f'no {FILE} in {work_dir}: give the work dir of a training with '
                        'WeightStatisticsHook')
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        looked = shares_of(record, 'flipped').size and shares_of(record, 'near_zero').size
        drawn = [len(histogram['counts']) == 2 * SIDE for histogram in record['histograms']]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f'{path} is not a record of WeightStatisticsHook or is damaged '
                        f'({first_line(error)}): resuming the training writes it again') from error
    if not looked or not drawn or not all(drawn):
        raise UserError(f'{path} has no sample with a histogram yet: train longer, or '
                        'lower interval and figure_interval of WeightStatisticsHook')
    return record


def summarize(record: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a training.

    Returns:
        dict: ``iterations`` until the last look and the ``interval`` between looks; ``flip_ratio``
        at the last look and as the mean over those in the last tenth of the record; the share
        ``near_zero`` at the last look.
    """
    flips, iterations = shares_of(record, 'flipped'), iterations_of(record)
    return dict(
        iterations=int(iterations[-1]), interval=record['interval'], flip_ratio=float(flips[-1]),
        flip_ratio_last_tenth=float(flips[iterations > 0.9 * iterations[-1]].mean()),
        near_zero=float(shares_of(record, 'near_zero')[-1]))


def histogram_figure(records: Sequence[dict[str, Any]], names: Sequence[str]):
    """Draw the histograms of latent weights in panels on common axes."""
    figure = new_figure(1 + 4.5 * len(records), 3.6)
    panels = figure.subplots(1, len(records), squeeze=False, sharex=True, sharey=True)[0]
    widest = []
    for panel, record, name, colour in zip(panels, records, names, COLOURS):
        draw_histogram(panel, record, color=colour)
        widest.append(panel.get_xlim()[1])
        iteration = record['histograms'][-1]['iteration']
        panel.set_title(f'{name}, {iteration} iterations', fontsize=10)
        panel.label_outer()
    panels[0].set_xlim(-max(widest), max(widest))
    return figure


def flip_figure(records: Sequence[dict[str, Any]], names: Sequence[str]):
    """Draw the shares of weights that flipped, and of those near 0, on axes of their own."""
    figure = new_figure(10, 3.6)
    left, right = figure.subplots(1, 2)
    for axis, share in ((left, 'flipped'), (right, 'near_zero')):
        for later, record, name, colour in zip(
                reversed(range(len(records))), records, names, COLOURS):
            # Broader than later curves, so that coinciding ones remain visible.
            draw_shares(axis, record, share, label=name, color=colour,
                        linewidth=1.4 + 1.3 * later)
    left.legend(frameon=False, fontsize=9)
    return figure


def format_results(results: dict[str, dict[str, Any]]) -> str:
    """Return the numbers as a Markdown table."""
    interval = next(iter(results.values()))['interval']
    lines = [f'| | iterations | flipped within {interval} iterations, last look '
             '| mean of the last tenth | near 0 |', '|---|---|---|---|---|']
    for name, r in results.items():
        lines.append(f'| {name} | {r["iterations"]} | {r["flip_ratio"]:.4%} '
                     f'| {r["flip_ratio_last_tenth"]:.4%} | {r["near_zero"]:.2%} |')
    return '\n'.join(lines)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Reads what WeightStatisticsHook recorded in work dirs and draws the '
                    'histograms of the latent weights (weight_histograms.png) and the weights '
                    'that flipped (weight_flips.png), side by side; prints the final figures and '
                    'writes them to oscillation.json.')
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR',
                        help='such as a training without the regularization and one with it')
    parser.add_argument('--names', nargs='+', help='what to call them (default: folder names)')
    parser.add_argument('--out', default='oscillation', metavar='DIR',
                        help='folder to write to (default: oscillation)')
    args = parser.parse_args(argv)
    print(format_results(compare_oscillation(args.work_dirs, names=args.names, out=args.out)))


if __name__ == '__main__':
    main()
