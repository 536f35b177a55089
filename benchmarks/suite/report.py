"""Tables of a suite: Markdown, CSV and JSON of what its runs scored and its rows cost."""

from __future__ import annotations

import csv
import io
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch

from benchmarks.latency.latency import processor, versions
from benchmarks.suite.runs import Run
from benchmarks.suite.suite import SUMMARY, Row, Suite
from bhvit_seg.fileio import write_json, write_text

SHOWN_OF_CLASSES = ('IoU', 'F1')
NAMES = {'aAcc': 'pixel accuracy', 'mFscore': 'mean F1', 'mAcc': 'mean recall'}
NOTHING = '–'


def metric_names(suite: Suite) -> list[str]:
    """Every score in the report: means over classes, IoU and F1 of each, the suite's metrics."""
    return list(dict.fromkeys([*SUMMARY, *(f'{column}.{name}' for name in suite.classes
                                           for column in SHOWN_OF_CLASSES), *suite.metrics]))


def score(scores: dict[str, Any], metric: str) -> float | None:
    """One score of a run, in per cent; None where it is not defined."""
    if metric in SUMMARY:
        return scores['summary'].get(metric)
    column, _, name = metric.partition('.')
    return scores['classes'].get(name, {}).get(column)


def describe_metric(metric: str) -> str:
    """Its name in a heading."""
    column, _, name = metric.partition('.')
    return f'{name} {column}' if name else NAMES.get(metric, metric)


def summarize(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and sample deviation over runs; the deviation of one run is None."""
    known = [value for value in values if value is not None]
    return {'mean': statistics.fmean(known) if known else None,
            'deviation': statistics.stdev(known) if len(known) > 1 else None, 'runs': len(known)}


def compare(runs: dict[str, dict[str, Any]], first: dict[str, dict[str, Any]],
            metric: str) -> dict[str, Any]:
    """Summarize how much better than the first row's the runs of a row are, seed by seed.

    Runs of one seed see the same crops in the same order, so that their difference spreads less
    than either score.
    """
    pairs = [(run[metric], first[seed][metric]) for seed, run in runs.items() if seed in first]
    return summarize([mine - other for mine, other in pairs if None not in (mine, other)])


def machine() -> dict[str, Any]:
    """What the suite ran on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {'processor': processor(), 'cores': os.cpu_count(), 'gpu': gpu,
            'system': platform.platform(), 'versions': versions()}


def settings_of(row: Row) -> dict[str, Any]:
    """How a row was trained."""
    loader = row.cfg.train_dataloader
    crop = row.cfg.get('crop_size')
    return {'iterations': row.iterations, 'batch_size': loader.get('batch_size'),
            'crop': None if crop is None else list(crop), 'seeds': list(row.seeds),
            'data_root': loader.dataset.get('data_root')}


def collect(suite: Suite, runs: Sequence[Run], costs: dict[str, dict[str, Any]],
            failures: dict[str, str]) -> dict[str, Any]:
    """Put together everything that the tables say.

    Args:
        suite: The suite.
        runs: Its runs.
        costs: What :func:`~benchmarks.suite.costs.measure_costs` returned, by row.
        failures: Sentences by the name of a run, or of a row whose costs are missing.
    """
    rows = []
    for row in suite.rows:
        own = [run for run in runs if run.row is row]
        found = {run.seed: run.scores for run in own if run.scores is not None}
        rows.append({
            'name': row.name, 'config': str(row.config), **settings_of(row),
            'scores': {metric: summarize([score(scores, metric) for scores in found.values()])
                       for metric in metric_names(suite)},
            'runs': {str(seed): {metric: score(scores, metric) for metric in metric_names(suite)}
                     for seed, scores in found.items()},
            'costs': costs.get(row.name)})
    for row in rows:
        row['differences'] = {metric: compare(row['runs'], rows[0]['runs'], metric)
                              for metric in suite.metrics}
    return {'suite': str(suite.path), 'title': suite.title, 'classes': list(suite.classes),
            'metrics': list(suite.metrics), 'size': list(suite.size), 'machine': machine(),
            'failures': failures, 'rows': rows}


def _shared(rows: Sequence[dict[str, Any]], key: str) -> Any:
    """A setting, if it is the same in all rows."""
    values = [row[key] for row in rows]
    return values[0] if all(value == values[0] for value in values) else None


def _settings_line(report: dict[str, Any]) -> str:
    rows, host = report['rows'], report['machine']
    parts = []
    for key, text in (('iterations', '{} iterations'), ('batch_size', 'batches of {}'),
                      ('crop', 'crops of {}'), ('data_root', 'data {}')):
        value = _shared(rows, key)
        if value is not None:
            shown = '×'.join(map(str, value)) if isinstance(value, list) else value
            parts.append(text.format(shown))
        elif any(row[key] != rows[0][key] for row in rows):
            parts.append(f'{key} differ (results.json)')
    seeds = sorted({seed for row in rows for seed in row['seeds']})
    parts.append(f'seeds {", ".join(map(str, seeds))}')
    parts.append(host['gpu'] or f'{host["processor"]}, {host["cores"]} cores, no GPU')
    return '; '.join(parts) + '.'


def _mean(cell: dict[str, Any], sign: str = '') -> str:
    if cell['mean'] is None:
        return NOTHING
    deviation = '' if cell['deviation'] is None else f' ± {cell["deviation"]:.1f}'
    return f'{cell["mean"]:{sign}.1f}{deviation}'


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rule = ['---', *['---:'] * (len(headings) - 1)]
    return [f'| {" | ".join(cells)} |' for cells in (headings, rule, *lines)]


def score_table(report: dict[str, Any]) -> list[str]:
    """Scores of every row as a Markdown table."""
    metrics = ['mIoU', *(f'{column}.{name}' for name in report['classes']
                         for column in SHOWN_OF_CLASSES), 'aAcc']
    first, compared = report['rows'][0], report['metrics'][0]
    lines = [[row['name'], *(_mean(row['scores'][metric]) for metric in metrics),
              NOTHING if row is first else _mean(row['differences'][compared], '+'),
              f'{len(row["runs"])} of {len(row["seeds"])}'] for row in report['rows']]
    return _table(['', *map(describe_metric, metrics),
                   f'{describe_metric(compared)}, less that of {first["name"]}', 'seeds'], lines)


def file_bytes(costs: dict[str, Any]) -> int:
    """Bytes of the packed file, or where there is none of bits and float32."""
    packed = costs['packed_bytes']
    return costs['complexity']['bytes'] if packed is None else packed


def cost_table(report: dict[str, Any]) -> list[str]:
    """Costs of every row as a Markdown table."""
    lines = []
    for row in report['rows']:
        costs = row['costs']
        if costs is None:
            lines.append([row['name'], *[NOTHING] * 8])
            continue
        count, latency = costs['complexity'], costs['latency']
        # A total that lacks a layer is a lower bound.
        bound = '≥ ' if count['unknown'] else ''
        lines.append([
            row['name'], *(f'{bound}{count[key] / 1e6:,.1f}' for key in ('flops', 'bops', 'ops')),
            f'{count["binary_parameters"] / 1e6:.2f}', f'{count["float_parameters"] / 1e6:.2f}',
            f'{file_bytes(costs) / 1e6:.2f}',
            *(f'{latency[name]["min_ms"]:.1f}' if name in latency else NOTHING
              for name in ('packed', 'twin'))])
    return _table(['', 'FLOPs, M', 'BOPs, M', 'OPs, M', '1-bit, M', 'float, M', 'MB',
                   'packed, ms', 'float twin, ms'], lines)


def markdown(report: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    size = '×'.join(map(str, report['size']))
    lines = [f'# {report["title"]}', '', _settings_line(report), '',
             'Scores in per cent after the last iteration: mean ± sample deviation over seeds; '
             'differences are taken seed by seed.',
             '', *score_table(report), '',
             f'Costs for an image of {size}: OPs = FLOPs + BOPs / 64, multiply-accumulates of '
             'convolutions, linear layers and attention; MB of the packed file, its full-precision '
             'parts in 32 bits, or, where there is none, of bits and float32; shortest time of the '
             'packed engine, and of the full-precision twin in torch.', '', *cost_table(report)]
    unpacked = {row['name']: row['costs']['not_packed'] for row in report['rows']
                if row['costs'] and row['costs']['not_packed']}
    if unpacked:
        lines += ['', 'Not packed:', '', *(f'- {name}: {sentence}'
                                           for name, sentence in unpacked.items())]
    if report['failures']:
        lines += ['', 'Missing:', '', *(f'- {name}: {sentence}'
                                        for name, sentence in report['failures'].items())]
    return '\n'.join(lines) + '\n'


def rows_csv(report: dict[str, Any]) -> str:
    """A line for each row: means, deviations, costs."""
    lines = []
    for row in report['rows']:
        line = {'row': row['name'], 'runs': len(row['runs'])}
        for metric, cell in row['scores'].items():
            line[metric], line[f'{metric} deviation'] = cell['mean'], cell['deviation']
        costs = row['costs'] or {}
        line.update({key: value for key, value in costs.get('complexity', {}).items()
                     if key not in ('name', 'kind', 'unknown')})
        line['packed_bytes'] = costs.get('packed_bytes')
        for name in ('packed', 'twin'):
            line[f'{name}_min_ms'] = costs.get('latency', {}).get(name, {}).get('min_ms')
        lines.append(line)
    return _csv(lines)


def runs_csv(report: dict[str, Any]) -> str:
    """A line for each run: its scores."""
    return _csv([{'row': row['name'], 'seed': seed, **scores}
                 for row in report['rows'] for seed, scores in row['runs'].items()])


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    headings = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, headings, lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write ``results.md``, ``results.csv``, ``runs.csv`` and ``results.json``."""
    write_text(folder / 'results.md', markdown(report))
    write_text(folder / 'results.csv', rows_csv(report))
    write_text(folder / 'runs.csv', runs_csv(report))
    write_json(folder / 'results.json', report)
