from __future__ import annotations

import csv
import io
import json
import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.suite.plots import mean_curve, write_plots
from benchmarks.suite.report import (
    collect,
    compare,
    markdown,
    rows_csv,
    runs_csv,
    summarize,
    write_report,
)
from benchmarks.suite.runs import runs_of, write_config
from benchmarks.suite.suite import load_suite

ROADS = {0: 60.0, 1: 64.0, 2: 65.0}


def scores(road: float | None) -> dict:
    classes = {name: {'IoU': value, 'F1': value, 'Precision': value, 'Recall': value}
               for name, value in (('background', 90.0), ('road', road))}
    return {'summary': dict(aAcc=91.0, mIoU=80.0, mFscore=85.0, mAcc=84.0), 'classes': classes}


def costs(**changes) -> dict:
    count = dict(name='total', kind='', flops=2_000_000, bops=64_000_000, ops=3_000_000.0,
                 binary_parameters=1_000_000, float_parameters=500_000, bytes=2_125_000,
                 unknown=[])
    return {'packed_bytes': 2_200_000, 'not_packed': None, 'complexity': {**count, **changes},
            'latency': {'packed': {'min_ms': 4.0, 'median_ms': 5.0},
                        'twin': {'min_ms': 40.0, 'median_ms': 50.0}}}


@pytest.fixture
def runs(tiny_config, tmp_path):
    """Runs of a suite of two rows: the first with three results, the second with one."""
    tiny_config()
    path = tmp_path / 'suite.py'
    path.write_text("title = 'Roads'\nsize = (32, 64)\nseeds = (0, 1, 2)\n"
                    "metrics = ('IoU.road', 'mIoU')\nrows = [dict(name='a', config='tiny.py'), "
                    "dict(name='b', config='tiny.py')]\n")
    suite = load_suite(path)
    runs = runs_of(suite, tmp_path / 'work')
    for run in runs:
        if run.row.name == 'b' and run.seed:
            continue
        run.folder.mkdir(parents=True)
        run.checkpoint.touch()
        road = ROADS[run.seed] if run.row.name == 'a' else None
        run.scores_path.write_text(json.dumps(scores(road)))
        log = run.folder / '1' / 'vis_data'
        log.mkdir(parents=True)
        log.joinpath('scalars.json').write_text('\n'.join(
            json.dumps({'step': step, name: 1.0 * step})
            for step in (1, 2, 3) for name in ('loss', 'mIoU')))
    return SimpleNamespace(suite=suite, all=runs)


@pytest.fixture
def report(runs):
    return collect(runs.suite, runs.all, {'a': costs()}, {'b, seed 1': 'train.py said: no'})


def test_summaries():
    assert summarize([60.0, 64.0, 65.0]) == {
        'mean': 63.0, 'deviation': statistics.stdev([60, 64, 65]), 'runs': 3}
    assert summarize([5.0, None]) == {'mean': 5.0, 'deviation': None, 'runs': 1}
    assert summarize([]) == {'mean': None, 'deviation': None, 'runs': 0}


def test_report_has_every_seed_and_its_spread(report):
    a, b = report['rows']
    assert a['scores']['IoU.road'] == summarize(ROADS.values())
    assert {seed: run['F1.road'] for seed, run in a['runs'].items()} == {
        str(seed): value for seed, value in ROADS.items()}
    assert b['scores']['IoU.road']['mean'] is None and b['scores']['mIoU']['mean'] == 80
    assert (a['iterations'], a['batch_size'], a['seeds']) == (12, 2, [0, 1, 2])
    assert report['machine']['cores'] and 'torch' in report['machine']['versions']
    json.dumps(report, allow_nan=False)


def test_differences_are_between_runs_of_one_seed():
    first = {'0': {'x': 50.0}, '1': {'x': 60.0}, '2': {'x': None}}
    runs = {'1': {'x': 61.5}, '0': {'x': 52.5}, '2': {'x': 70.0}, '3': {'x': 0.0}}
    assert compare(runs, first, 'x') == {
        'mean': 2.0, 'deviation': pytest.approx(0.5 ** 0.5), 'runs': 2}


def test_markdown(report):
    text = markdown(report)
    lines = text.splitlines()
    assert lines[0] == '# Roads' and '12 iterations; batches of 2' in text
    assert '| a | 80.0 ± 0.0 | 90.0 ± 0.0 | 90.0 ± 0.0 | 63.0 ± 2.6 | 63.0 ± 2.6 ' in text
    assert '| b | 80.0 | 90.0 | 90.0 | – | – | 91.0 | – | 1 of 3 |' in lines
    assert '| a | 2.0 | 64.0 | 3.0 | 1.00 | 0.50 | 2.20 | 4.0 | 40.0 |' in lines
    assert f'| b | {" | ".join("–" * 8)} |' in lines
    assert '- b, seed 1: train.py said: no' in lines
    for start in [i for i, line in enumerate(lines) if line.startswith('|  |')]:
        widths = {line.count('|') for line in lines[start:start + 4]}
        assert len(widths) == 1


def test_totals_that_lack_a_layer_are_bounds(runs):
    report = collect(runs.suite, runs.all, {'a': costs(unknown=['x (X)'])}, {})
    assert '| a | ≥ 2.0 | ≥ 64.0 | ≥ 3.0 |' in markdown(report)


def test_any_metric_of_a_class_can_be_asked_for(runs, tmp_path):
    runs.suite.metrics = ('Recall.road',)
    report = collect(runs.suite, runs.all, {}, {})
    assert report['rows'][0]['scores']['Recall.road'] == summarize(ROADS.values())
    assert 'road Recall, less that of a' in markdown(report)


def test_reason_why_nothing_was_packed_is_told(runs):
    refused = {**costs(), 'packed_bytes': None, 'not_packed': '168 of 65536 labels differ'}
    text = markdown(collect(runs.suite, runs.all, {'a': refused, 'b': costs()}, {}))
    assert 'Not packed:\n\n- a: 168 of 65536 labels differ\n' in text and '- b: ' not in text


def test_scores_of_other_settings_are_not_shown(runs):
    run = runs.all[0]
    write_config(run)
    assert collect(runs.suite, runs.all, {}, {})['rows'][0]['runs'].keys() == {'0', '1', '2'}
    run.row.cfg.optim_wrapper.optimizer.lr = 77
    assert collect(runs.suite, runs.all, {}, {})['rows'][0]['runs'].keys() == {'1', '2'}


def test_csv(report):
    a, b = csv.DictReader(io.StringIO(rows_csv(report)))
    assert float(a['IoU.road']) == 63 and float(a['IoU.road deviation']) == pytest.approx(2.6458,
                                                                                       abs=1e-3)
    assert a['packed_bytes'] == '2200000' and a['packed_min_ms'] == '4.0'
    assert b['ops'] == '' and b['IoU.road'] == '' and b['runs'] == '1'
    lines = list(csv.DictReader(io.StringIO(runs_csv(report))))
    assert [(line['row'], line['seed']) for line in lines] == [
        ('a', '0'), ('b', '0'), ('a', '1'), ('a', '2')] or len(lines) == 4
    assert {line['IoU.road'] for line in lines if line['row'] == 'a'} == {'60.0', '64.0', '65.0'}


def test_files(report, runs, tmp_path):
    pytest.importorskip('matplotlib', reason='pip install "bhvit_seg[benchmark]"')
    write_report(report, tmp_path)
    write_plots(report, runs.all, tmp_path)
    assert json.loads((tmp_path / 'results.json').read_text()) == report
    for name in ('scores.png', 'costs.png', 'curves.png'):
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')


def test_pictures_of_a_suite_without_results(runs, tmp_path):
    pytest.importorskip('matplotlib', reason='pip install "bhvit_seg[benchmark]"')
    for run in runs.all:
        run.scores_path.unlink(missing_ok=True)
    write_plots(collect(runs.suite, runs.all, {}, {}), runs.all, tmp_path)
    assert (tmp_path / 'scores.png').is_file()


def test_mean_curve_is_over_common_iterations():
    steps, mean, deviation = mean_curve([{1: 1.0, 2: 2.0, 3: 9.0}, {1: 3.0, 2: 2.0}])
    assert list(steps) == [1, 2] and list(mean) == [2, 2]
    assert np.allclose(deviation, [2**0.5, 0])
