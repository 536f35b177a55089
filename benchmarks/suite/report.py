"""The summary table of a suite, and all numbers behind it as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.machine import machine
from benchmarks.suite.runs import Run
from benchmarks.suite.suite import SUMMARY, Row, Suite
from bhvit_seg.commands.costs import measure_complexity

NAMES = {'aAcc': 'pixel accuracy', 'mFscore': 'mean F1', 'mAcc': 'mean recall'}
NOTHING = '–'


def describe(metric: str) -> str:
    """Return the name of a metric for a heading."""
    column, _, name = metric.partition('.')
    return f'{name} {column}' if name else NAMES.get(metric, metric)


def score(scores: dict[str, Any], metric: str) -> float | None:
    """Return one score of a run in per cent; None where it is not defined."""
    if metric in SUMMARY:
        return scores['summary'].get(metric)
    column, _, name = metric.partition('.')
    return scores['classes'].get(name, {}).get(column)


def summarize(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean and sample deviation over runs; the deviation of a single run is None."""
    known = [value for value in values if value is not None]
    return {'mean': statistics.fmean(known) if known else None,
            'deviation': statistics.stdev(known) if len(known) > 1 else None}


def count_costs(run: Run, size: tuple[int, int]) -> dict[str, Any]:
    """Return operations, parameters and bytes of a run's network for an image of ``size``."""
    found = measure_complexity(run.config, size)
    return {**found['total'], 'unknown': found['unknown'], 'packed_bytes': found['packed_bytes'],
            'not_packed': found['not_packed']}


def collect(suite: Suite, runs: Sequence[Run], costs: dict[str, dict[str, Any]],
            failures: dict[str, str]) -> dict[str, Any]:
    """Put together all numbers of a report.

    Args:
        suite: The suite.
        runs: Its runs.
        costs: What :func:`count_costs` returned, by row.
        failures: Sentences by the name of a run.
    """
    metrics = [*SUMMARY, *(f'{column}.{name}' for name in suite.classes
                           for column in ('IoU', 'F1'))]
    metrics = list(dict.fromkeys([*metrics, *suite.metrics]))
    rows: list[dict[str, Any]] = []
    for row in suite.rows:
        scores = {run.seed: run.scores() for run in runs if run.row is row}
        found = {str(seed): {metric: score(each, metric) for metric in metrics}
                 for seed, each in scores.items() if each is not None}
        first = rows[0]['runs'] if rows else found
        # Runs of one seed see the same crops in the same order: differences are taken seed by seed.
        pairs = [(mine[suite.metrics[0]], first[seed][suite.metrics[0]])
                 for seed, mine in found.items() if seed in first]
        rows.append({
            'name': row.name, 'config': str(row.config), **settings_of(row), 'runs': found,
            'scores': {metric: summarize([run[metric] for run in found.values()])
                       for metric in metrics},
            'difference': summarize([mine - its for mine, its in pairs if None not in (mine, its)]),
            'costs': costs.get(row.name)})
    return {'suite': str(suite.path), 'title': suite.title, 'classes': list(suite.classes),
            'metrics': list(suite.metrics), 'size': list(suite.size), 'machine': machine(),
            'failures': failures, 'rows': rows}


def settings_of(row: Row) -> dict[str, Any]:
    """Return how a row is trained."""
    return {'iterations': row.iterations, 'seeds': list(row.seeds),
            'batch_size': row.cfg.train_dataloader.get('batch_size'),
            'crop': list(row.cfg.get('crop_size') or ())}


def _cell(summary: dict[str, Any], sign: str = '') -> str:
    if summary['mean'] is None:
        return NOTHING
    deviation = '' if summary['deviation'] is None else f' ± {summary["deviation"]:.1f}'
    return f'{summary["mean"]:{sign}.1f}{deviation}'


def file_bytes(costs: dict[str, Any]) -> int:
    """Return the bytes of the packed file, or without one those of bits and float32."""
    packed = costs['packed_bytes']
    return costs['bytes'] if packed is None else packed


def _cost_cells(costs: dict[str, Any] | None) -> list[str]:
    if costs is None:
        return [NOTHING] * 4
    # A total that lacks a layer is a lower bound.
    bound = '≥ ' if costs['unknown'] else ''
    return [f'{bound}{costs["ops"] / 1e6:,.1f}', f'{costs["binary_parameters"] / 1e6:.2f}',
            f'{costs["float_parameters"] / 1e6:.2f}', f'{file_bytes(costs) / 1e6:.2f}']


def table(report: dict[str, Any]) -> list[str]:
    """Return the summary as the lines of a Markdown table."""
    shown = ['mIoU', *(f'IoU.{name}' for name in report['classes']), 'aAcc']
    first, compared = report['rows'][0], describe(report['metrics'][0])
    lines = [['', *map(describe, shown), f'{compared}, minus {first["name"]}', 'seeds', 'OPs, M',
              '1-bit, M', 'float, M', 'MB']]
    lines.append(['---', *['---:'] * (len(lines[0]) - 1)])
    for row in report['rows']:
        lines.append([row['name'], *(_cell(row['scores'][metric]) for metric in shown),
                      NOTHING if row is first else _cell(row['difference'], '+'),
                      f'{len(row["runs"])} of {len(row["seeds"])}', *_cost_cells(row['costs'])])
    return [f'| {" | ".join(line)} |' for line in lines]


def markdown(report: dict[str, Any]) -> str:
    """Return the whole report as Markdown."""
    lines = [f'# {report["title"]}', '']
    for key, text in (('iterations', '{} iterations'), ('batch_size', 'batches of {}'),
                      ('crop', 'crops of {}')):
        values = [row[key] for row in report['rows']]
        if all(value == values[0] for value in values):
            lines[-1] += text.format('×'.join(map(str, values[0])) if isinstance(values[0], list)
                                     else values[0]) + '; '
    host = report['machine']
    lines[-1] += host['gpu'] or f'{host["processor"]}, {host["cores"]} cores, no GPU'
    lines += ['', 'Scores in per cent after the last iteration: mean ± sample deviation over '
              'seeds; differences seed by seed. Costs for an image of '
              f'{"×".join(map(str, report["size"]))}: OPs = FLOPs + BOPs / 64; MB of the packed '
              'file with 32-bit floats or, without one, of bits and 32-bit floats.',
              '', *table(report)]
    for title, sentences in (
            ('Not packed', {row['name']: row['costs']['not_packed'] for row in report['rows']
                            if row['costs'] and row['costs']['not_packed']}),
            ('Failed', report['failures'])):
        if sentences:
            lines += ['', f'{title}:', '',
                      *(f'- {name}: {sentence}' for name, sentence in sentences.items())]
    return '\n'.join(lines) + '\n'
