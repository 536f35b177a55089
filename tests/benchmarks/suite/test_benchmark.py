from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from benchmarks.suite.benchmark import benchmark_suite
from bhvit_seg.datasets.synthetic import write_dataset

# Stands in for both tools: the second row fails, scores of others depend on the seed.
TOOL = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
names = {}
exec(Path(sys.argv[1]).read_text(), names)
seed, iterations = names['randomness']['seed'], names['train_cfg']['max_iters']
if names['model']['type'] == 'Nonsense':
    sys.exit('error: Nonsense is not in the registry')
if 'train' in sys.argv[0]:
    (folder / f'iter_{iterations}.pth').touch()
else:
    classes = {name: dict.fromkeys(('IoU', 'F1', 'Precision', 'Recall'), 50. + seed)
               for name in ('background', 'road')}
    summary = dict.fromkeys(('aAcc', 'mIoU', 'mFscore', 'mAcc'), 50. + seed)
    (folder / f'test_iter_{iterations}.json').write_text(
        json.dumps({'summary': summary, 'classes': classes}))
"""


@pytest.fixture
def tools(tmp_path):
    """A folder with stand-ins of the tools."""
    folder = tmp_path / 'tools'
    folder.mkdir()
    for name in ('train.py', 'test.py'):
        (folder / name).write_text(TOOL)
    return folder


@pytest.fixture
def suite(tiny_config, tmp_path):
    """A suite whose first row fails, and whose second one needs what the first does not make."""
    tiny_config()
    tiny_config("model.update(type='Nonsense')", name='broken')
    path = tmp_path / 'suite.py'
    path.write_text(
        "title = 'Tiny'\nsize = (32, 32)\nmetrics = ('IoU.road',)\niterations = 4\n"
        "seeds = (0, 2)\nrows = [\n    dict(name='broken', config='broken.py'),\n"
        "    dict(name='follower', config='tiny.py', checkpoints={'load_from': 'broken'}),\n"
        "    dict(name='whole', config='tiny.py'),\n"
        "    dict(name='taught', config='tiny.py', checkpoints={'load_from': 'whole'})]\n")
    return path


def test_one_row_fails_and_the_rest_is_done(suite, tools, tmp_path):
    work_dir, told = tmp_path / 'work', []
    report = benchmark_suite(suite, tools, work_dir, say=told.append)
    assert set(report['failures']) == {
        f'{row}, seed {seed}' for row in ('broken', 'follower') for seed in (0, 2)}
    assert 'train.py said: error: Nonsense' in report['failures']['broken, seed 0']
    assert "checkpoint of 'broken'" in report['failures']['follower, seed 0']
    assert report == json.loads((work_dir / 'results.json').read_text())
    whole, taught = report['rows'][2:]
    for row in (whole, taught):
        assert row['scores']['IoU.road'] == {
            'mean': 51.0, 'deviation': pytest.approx(2**0.5), 'runs': 2}
    assert whole['costs']['complexity']['flops'] > 0 and whole['costs']['packed_bytes'] is None
    assert set(whole['costs']['latency']) == {'twin'}
    assert told[0] == '[1/8] broken, seed 0: to be trained for 4 iterations'
    for name in ('results.md', 'results.csv', 'runs.csv'):
        assert 'whole' in (work_dir / name).read_text()

    told.clear()
    benchmark_suite(suite, tools, work_dir, dry_run=True, only=['broken', 'whole'],
                    say=told.append)
    assert told == ['broken, seed 0: to be trained for 4 iterations', 'whole, seed 0: done',
                    'broken, seed 2: to be trained for 4 iterations', 'whole, seed 2: done']
    for name in ('train.py', 'test.py'):
        (tools / name).write_text('raise SystemExit(1)')
    again = benchmark_suite(suite, tools, work_dir, only=['whole'], say=told.append)
    assert not again['failures'] and again['rows'] == report['rows']


def test_costs_that_cannot_be_measured_leave_the_scores(suite, tools, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError('out of luck')

    monkeypatch.setattr('benchmarks.suite.benchmark.measure_costs', fail)
    report = benchmark_suite(suite, tools, tmp_path / 'work', only=['whole'], seeds=[1],
                             say=lambda line: None)
    assert report['failures'] == {'whole': 'its costs are missing: out of luck'}
    assert report['rows'][2]['scores']['mIoU']['mean'] == 51 and not report['rows'][2]['costs']


def test_plots_that_fail_leave_the_tables(suite, tools, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError('out of paint')

    told = []
    monkeypatch.setattr('benchmarks.suite.benchmark.write_plots', fail)
    benchmark_suite(suite, tools, tmp_path / 'work', only=['whole'], say=told.append)
    assert told.count('no plots: out of paint') == 2
    assert 'whole' in (tmp_path / 'work' / 'results.md').read_text()


def test_other_seeds_stay_in_the_report_and_refused_runs_are_named(suite, tools, tmp_path):
    work_dir = tmp_path / 'work'
    benchmark_suite(suite, tools, work_dir, only=['whole'], say=lambda line: None)
    report = benchmark_suite(suite, tools, work_dir, only=['whole'], seeds=[1],
                             say=lambda line: None)
    assert report['rows'][2]['runs'].keys() == {'0', '1', '2'}
    told = []
    report = benchmark_suite(suite, tools, work_dir, only=['whole'], say=told.append)
    assert report['rows'][2]['runs'].keys() == {'0', '1', '2'} and report['rows'][2]['seeds'] == [
        0, 2, 1]
    assert [line for line in told if line.startswith('[')] == [
        '[1/2] whole, seed 0: done', '[2/2] whole, seed 2: done']

    text = suite.read_text()
    suite.write_text(text.replace("name='whole', config='tiny.py'",
                                  "name='whole', config='tiny.py', "
                                  "cfg_options={'optim_wrapper.optimizer.lr': 77.0}"))
    report = benchmark_suite(suite, tools, work_dir, only=['taught'], seeds=[5],
                             say=lambda line: None)
    assert not report['rows'][2]['runs']
    assert 'optim_wrapper.optimizer.lr' in report['failures']['whole, seed 0']


def test_dry_run_leaves_nothing(suite, tool, tmp_path, capsys):
    work_dir = tmp_path / 'work'
    assert tool('tools/benchmark.py')(
        [str(suite), '--work-dir', str(work_dir), '--dry-run', '--only', 'whole',
         '--seeds', '5', '6']) == 0
    assert capsys.readouterr().out.splitlines() == [
        'whole, seed 5: to be trained for 4 iterations',
        'whole, seed 6: to be trained for 4 iterations']
    assert not work_dir.exists()


@pytest.mark.parametrize('arguments, words', [
    (['--only', 'nobody'], "--only names 'nobody'"), (['--threads', '0'], '--threads is 0'),
    (['--data-root', 'no/such'], 'no folder at no/such'),
    (['--seeds', '-3'], 'has the seeds [-3]')])
def test_bad_arguments(suite, tool, sentence, arguments, words, tmp_path):
    assert words in sentence(tool('tools/benchmark.py'), suite, '--work-dir', tmp_path / 'work',
                             *arguments)


def test_missing_suite(tool, sentence):
    assert 'no suite at absent.py' in sentence(tool('tools/benchmark.py'), 'absent.py')


@pytest.mark.slow
def test_smoke_suite(repository, tmp_path, engine):
    """The house's own: a binary network is packed, timed and compared with its twin."""
    write_dataset(tmp_path / 'data', 8, 2, (64, 64))
    work_dir = tmp_path / 'work'
    report = benchmark_suite(repository / 'configs/suites/smoke.py', repository / 'tools',
                             work_dir, data_root=tmp_path / 'data', seeds=[0, 1])
    assert not report['failures']
    twin, binary = report['rows']
    assert (twin['crop'], twin['iterations'], twin['batch_size']) == ([64, 64], 4, 2)
    for row in (twin, binary):
        assert row['scores']['mIoU']['runs'] == 2
        assert row['scores']['mIoU']['deviation'] is not None
    assert twin['costs']['packed_bytes'] is None and 'packed' not in twin['costs']['latency']
    assert binary['costs']['packed_bytes'] == (work_dir / 'binary' / 'model.bhv').stat().st_size
    assert set(binary['costs']['latency']) == {'packed', 'twin'}
    assert binary['costs']['complexity']['bops'] > 0 == twin['costs']['complexity']['bops']

    for name, columns in (('pictures.png', 4), ('predictions.png', 2)):
        sheet = Image.open(work_dir / name)
        assert sheet.width > columns * 200 and len(sheet.getcolors(1 << 20)) > columns

    # A run that was killed after its training is tested, not trained again.
    run = work_dir / 'binary' / 'seed_1'
    scores = (run / 'test_iter_4.json').read_text()
    (run / 'test_iter_4.json').unlink()
    shutil.rmtree(work_dir / 'twin' / 'seed_1')
    again = benchmark_suite(repository / 'configs/suites/smoke.py', repository / 'tools',
                            work_dir, data_root=tmp_path / 'data', seeds=[0, 1])
    assert (run / 'test_iter_4.json').read_text() == scores
    assert again['rows'][0]['scores'] == twin['scores']
