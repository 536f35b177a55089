"""What the latency benchmark measures, compares and writes; no test checks a time."""

import json

import pytest

from benchmarks.latency import timing as module
from benchmarks.latency.__main__ import main
from benchmarks.latency.report import tables
from benchmarks.latency.timing import benchmark_latency

DEMO = 'configs/demo/bhvit-mini_segformer_1xb8-250_rs-lvf-224x224.py'


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(module, 'PAUSE', 0)


def test_benchmark_records_compares_and_draws(repository, engine, tmp_path):
    pytest.importorskip('matplotlib')
    said = []
    record = benchmark_latency(
        repository / DEMO, sizes=[64], threads=[1], baselines=['torch-simulated', 'torch'],
        rounds=1, out=tmp_path, serial=True, say=said.append)
    packed = [result for result in record['results'] if result['group'] == 'packed']
    assert packed and min(result['ratio'] for result in packed) == 1
    assert {'torch-simulated', 'torch'} < {result['name'] for result in record['results']}
    for result in record['results']:
        assert result['calls'] >= 1 and result['size'] == (64, 64)
        assert 0 < result['min_ms'] <= result['median_ms'] <= result['p95_ms']
        assert result['agreement'] > 0.98
    written = json.loads((tmp_path / 'latency.json').read_text())
    assert written['versions']['torch'] and written['processor']
    assert len(written['results']) == len(record['results'])
    assert (tmp_path / 'latency.png').read_bytes().startswith(b'\x89PNG')
    table, = tables(record)
    assert table.row_count == len(record['results']) and table.title == '64×64, 1 thread'
    assert '64×64, 1 thread' in said


@pytest.mark.parametrize('arguments,message', [
    (['--sizes', '0'], '--sizes is 0'),
    (['--sizes', '66', '--baselines', 'torch', '--without-packed'], '66×66'),
    (['--threads', '4000'], '--threads asks for 4000'),
    (['--baselines', 'tensorrt'], "'tensorrt'"),
    (['--packed', 'missing.bhv'], '--packed needs the checkpoint'),
])
def test_bad_input_is_one_sentence(sentence, repository, arguments, message):
    assert message in sentence(main, repository / DEMO, *arguments)
