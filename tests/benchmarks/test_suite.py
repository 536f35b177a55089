"""Suites: what they read, what they run and resume, and what their table says."""

import json
import sys

import pytest
from mmengine.config import Config

from benchmarks.suite import runs as runs_module
from benchmarks.suite.__main__ import main, run_suite
from benchmarks.suite.report import markdown
from benchmarks.suite.runs import LOG, RunFailed, carry_out, runs_of
from benchmarks.suite.suite import load_suite
from bhvit_seg.datasets.synthetic import write_dataset
from bhvit_seg.errors import UserError

# Stands in for `bhvit-seg`: train and test fail where the model's type says so, scores depend on
# the seed.
STAND_IN = """
import json, os, sys
from pathlib import Path
command, config = sys.argv[1:3]
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
names = {}
exec(Path(config).read_text(), names)
seed, iterations = names['randomness']['seed'], names['train_cfg']['max_iters']
if names['model']['type'] == 'Nonsense':
    sys.exit('error: Nonsense is not in the registry')
if command == 'train':
    (folder / f'iter_{iterations}.pth').touch()
else:
    classes = {name: dict.fromkeys(('IoU', 'F1', 'Precision', 'Recall'), 50. + seed)
               for name in ('background', 'road')}
    summary = dict.fromkeys(('aAcc', 'mIoU', 'mFscore', 'mAcc'), 50. + seed)
    (folder / f'test_iter_{iterations}.json').write_text(
        json.dumps({'summary': summary, 'classes': classes}))
"""
COSTS = dict(flops=2_000_000, bops=64_000_000, ops=3_000_000.0, binary_parameters=1_000_000,
             float_parameters=500_000, bytes=2_125_000, unknown=[], packed_bytes=2_200_000,
             not_packed=None)
ROWS = ("[dict(name='broken', config='broken.py'), "
        "dict(name='follower', config='tiny.py', checkpoints={'load_from': 'broken'}), "
        "dict(name='whole', config='tiny.py'), "
        "dict(name='taught', config='tiny.py', checkpoints={'load_from': 'whole'})]")


@pytest.fixture
def write_suite(tiny_config, tmp_path):
    """A function that writes a suite of the tiny experiment, with more lines, and names it."""
    tiny_config()
    tiny_config("model.update(type='Nonsense')", name='broken')

    def write(*lines: str, rows: str = "[dict(name='one', config='tiny.py')]"):
        path = tmp_path / 'suite.py'
        path.write_text('\n'.join([f'rows = {rows}', *lines]) + '\n')
        return path

    return write


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    path = tmp_path / 'stand_in.py'
    path.write_text(STAND_IN)
    monkeypatch.setattr(runs_module, 'COMMAND', [sys.executable, str(path)])
    return path


def test_shipped_suites_load(repository):
    paths = sorted((repository / 'configs' / 'suites').glob('*.py'))
    suites = {path.stem: load_suite(path) for path in paths}
    assert {'ablation', 'dubai', 'epfl_roads', 'oscillation', 'smoke'} < set(suites)
    assert all(suite.title != suite.path.stem for suite in suites.values())
    for name in ('epfl_roads', 'dubai'):
        rows = {row.name: row for row in suites[name].rows}
        assert all(row.seeds == (0, 1) and row.iterations == 500 for row in rows.values())
        assert rows['distilled'].sources == {'model.teacher.checkpoint': rows['twin']}
    assert len(suites['ablation'].rows) == 9 and len(suites['dubai'].classes) == 5


@pytest.mark.parametrize('lines, rows, words', [
    ([], '[]', 'has no rows'),
    ([], "[dict(name='one', config='tiny.py', seed=1)]", "has the setting 'seed'"),
    ([], "[dict(name='one', config='tiny.py')] * 2", "two rows 'one'"),
    ([], "[dict(name='a', config='tiny.py', seeds=(1,)), dict(name='b', config='tiny.py', "
     "checkpoints={'load_from': 'a'})]", "checkpoint of 'a'"),
    ([], "[dict(name='one', config='tiny.py', cfg_options={'modle.x': 1})]", 'modle'),
    ([], "[dict(name='a', config='tiny.py'), dict(name='b', config='other.py')]", 'classes a, b'),
    ([], "[dict(name='one', config='epochs.py')]", 'trains by epochs'),
    (['metrics = ('], None, 'cannot be read'),
])
def test_mistakes_end_in_a_sentence(write_suite, tiny_config, lines, rows, words):
    tiny_config("metainfo.update(classes=('a', 'b'))",
                "test_dataloader['dataset']['metainfo'] = metainfo", name='other')
    tiny_config('train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=2)', name='epochs')
    with pytest.raises(UserError) as error:
        load_suite(write_suite(*lines, **({} if rows is None else {'rows': rows})))
    assert words in str(error.value) and '\n' not in str(error.value)


def test_runs_are_resumed_and_other_settings_refused(write_suite, stand_in, tmp_path):
    suite = load_suite(write_suite(
        'seeds = (0, 1)', rows="[dict(name='a', config='tiny.py'), dict(name='b', "
        "config='tiny.py', checkpoints={'load_from': 'a'})]"))
    first, second, *others = runs_of(suite, tmp_path / 'work')
    assert [run.name for run in (first, second, *others)] == [
        'a, seed 0', 'b, seed 0', 'a, seed 1', 'b, seed 1']
    assert first.state() == 'to be trained for 12 iterations'
    with pytest.raises(RunFailed, match='checkpoint of a, seed 0'):
        carry_out(second)
    for run in (first, second):
        carry_out(run)
        assert run.state() == 'done' and run.scores()['summary']['mIoU'] == 50
    written = Config.fromfile(str(second.config))
    assert written.randomness.seed == 0 and written.load_from == str(first.checkpoint)

    first.scores_path.unlink()
    assert first.state() == 'trained, to be tested'
    carry_out(first)
    carry_out(first)
    assert (first.folder / LOG).read_text().count('$ ') == 3

    first.checkpoint.write_bytes(b'another training')
    assert first.state() == 'done' and second.scores() is None
    assert 'load_from' in second.state()
    first.row.cfg.train_dataloader.batch_size = 7
    assert first.scores() is None and second.obstacle() == first.obstacle()
    with pytest.raises(UserError, match="'batch_size': 2"):
        carry_out(first)


def test_one_row_fails_and_the_others_are_reported(write_suite, stand_in, tmp_path, monkeypatch):
    pytest.importorskip('matplotlib', reason='pip install "bhvit_seg[benchmark]"')
    monkeypatch.setattr('benchmarks.suite.__main__.count_costs', lambda run, size: COSTS)
    suite = load_suite(write_suite("metrics = ('IoU.road', 'mIoU')", 'seeds = (0, 2)', rows=ROWS))
    work_dir, told = tmp_path / 'work', []
    report = run_suite(suite, work_dir, say=told.append)
    assert set(report['failures']) == {
        f'{row}, seed {seed}' for row in ('broken', 'follower') for seed in (0, 2)}
    assert told[0] == '[1/8] broken, seed 0: to be trained for 12 iterations'
    assert report == json.loads((work_dir / 'results.json').read_text())
    for name in ('scores.png', 'costs.png'):
        assert (work_dir / name).read_bytes().startswith(b'\x89PNG')
    text = markdown(report)
    assert (work_dir / 'results.md').read_text() == text
    assert '| whole | 51.0 ± 1.4 | 51.0 ± 1.4 | 51.0 ± 1.4 | 51.0 ± 1.4 | – | 2 of 2 | 3.0 ' in text
    assert '| broken | – | – | – | – | – | 0 of 2 | – | – | – | – |' in text
    assert '- broken, seed 0: train ended with' in text
    assert len({line.count('|') for line in text.splitlines() if line.startswith('|')}) == 1

    # Seeds of earlier calls stay in the table.
    suite = load_suite(suite.path, seeds=[1])
    again = run_suite(suite, work_dir, ['whole'], say=told.append)
    assert again['rows'][2]['runs'].keys() == {'0', '1', '2'} and not again['failures']


def test_dry_run_and_bad_arguments_leave_nothing(write_suite, tmp_path, capsys, sentence):
    work_dir = tmp_path / 'work'
    assert main([str(write_suite(rows=ROWS)), '--work-dir', str(work_dir), '--dry-run', '--only',
                 'whole', '--seeds', '5', '6']) == 0
    assert capsys.readouterr().out.splitlines() == [
        'whole, seed 5: to be trained for 12 iterations',
        'whole, seed 6: to be trained for 12 iterations']
    for arguments, words in ((('--only', 'nobody'), "'nobody'"), (('--seeds', -3), '(-3,)')):
        assert words in sentence(main, write_suite(), '--work-dir', work_dir, *arguments)
    assert not work_dir.exists()


@pytest.mark.slow
def test_smoke_suite(repository, tmp_path, monkeypatch):
    """A binary network and its twin are trained, tested and compared by the commands themselves."""
    pytest.importorskip('matplotlib', reason='pip install "bhvit_seg[benchmark]"')
    monkeypatch.chdir(repository)
    write_dataset(tmp_path / 'data', 8, 2, (64, 64))
    work_dir = tmp_path / 'work'
    arguments = [str(repository / 'configs/suites/smoke.py'), '--data-root',
                 str(tmp_path / 'data'), '--work-dir', str(work_dir)]
    assert main(arguments) == 0
    twin, binary = json.loads((work_dir / 'results.json').read_text())['rows']
    assert (twin['crop'], twin['iterations'], twin['batch_size']) == ([64, 64], 4, 2)
    assert binary['scores']['mIoU']['mean'] is not None
    assert binary['costs']['packed_bytes'] and twin['costs']['packed_bytes'] is None
    assert binary['costs']['bops'] > 0 == twin['costs']['bops']
