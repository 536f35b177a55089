from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import textwrap

import pytest
import torch

from benchmarks.suite.runs import (
    LOG,
    RunFailed,
    carry_out,
    last_iteration,
    lock,
    read_curves,
    runs_of,
    write_config,
)
from benchmarks.suite.suite import Row, load_suite
from bhvit_seg.errors import UserError


@pytest.fixture
def suite(tiny_config, tmp_path):
    tiny_config()
    path = tmp_path / 'suite.py'
    path.write_text("size = (32, 32)\nseeds = (0, 1)\nrows = [dict(name='a', config='tiny.py'), "
                    "dict(name='b', config='tiny.py', checkpoints={'load_from': 'a'})]\n")
    return load_suite(path)


@pytest.fixture
def fake_tools(tmp_path):
    """A function that writes a ``train.py`` and a ``test.py`` of these bodies."""
    folder = tmp_path / 'tools'
    folder.mkdir(exist_ok=True)
    head = ('import json, sys\nfrom pathlib import Path\n'
            "folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])\n")
    trained = "(folder / 'iter_12.pth').touch()"
    tested = "(folder / 'test_iter_12.json').write_text('{}')"

    def write(train: str = trained, test: str = tested):
        for name, body in (('train', train), ('test', test)):
            (folder / f'{name}.py').write_text(head + textwrap.dedent(body) + '\n')
        return folder

    return write


def test_runs_go_seed_by_seed(suite, tmp_path):
    runs = runs_of(suite, tmp_path / 'work')
    assert [(run.row.name, run.seed) for run in runs] == [
        ('a', 0), ('b', 0), ('a', 1), ('b', 1)]
    assert len({run.folder for run in runs}) == 4


def test_states(suite, tmp_path):
    run = runs_of(suite, tmp_path / 'work')[0]
    assert run.state() == 'to be trained for 12 iterations'
    run.folder.mkdir(parents=True)
    torch.save({'state_dict': {}}, run.folder / 'iter_4.pth')
    assert run.state() == 'to be resumed from iter_4'
    torch.save({'state_dict': {}}, run.checkpoint)
    assert run.state() == 'trained, to be tested'
    run.scores_path.write_text('{}')
    assert run.state() == 'done'


def test_config_of_a_run_is_whole(suite, tmp_path):
    first, second = runs_of(suite, tmp_path / 'work')[2:]
    write_config(second)
    names: dict = {}
    exec(second.config.read_text(), names)
    assert names['randomness']['seed'] == 1
    assert names['load_from'] == str(first.checkpoint)
    assert '_base_' not in names


def test_other_settings_are_not_mixed(suite, tmp_path):
    run = runs_of(suite, tmp_path / 'work')[0]
    write_config(run)
    write_config(run)
    run.row.cfg.train_dataloader.batch_size = 7
    with pytest.raises(UserError, match='holds a run with other settings'):
        write_config(run)


def test_results_of_other_settings_are_not_taken(suite, tmp_path, fake_tools):
    run = runs_of(suite, tmp_path / 'work')[0]
    carry_out(run, fake_tools(), print)
    assert run.scores == {}
    run.row.cfg.train_dataloader.batch_size = 7
    assert run.scores is None
    assert run.state().startswith('refused: ') and 'train_dataloader.batch_size' in run.state()
    with pytest.raises(UserError, match='holds a run with other settings'):
        carry_out(run, fake_tools(), print)


def test_a_suite_can_be_moved(suite, tmp_path, fake_tools):
    def runs(name):
        for row in suite.rows:
            row.cfg.model.teacher = {'config': str(tmp_path / name / 'configs' / 'teacher.py')}
            row.cfg.train_dataloader.dataset.data_root = str(tmp_path / name / 'data')
        return runs_of(suite, tmp_path / name)[:2]

    for run in runs('old'):
        carry_out(run, fake_tools(), print)
    (tmp_path / 'old').rename(tmp_path / 'new')
    first, second = runs('new')
    assert (first.state(), second.state()) == ('done', 'done')
    write_config(second)
    assert f"load_from = '{first.checkpoint}'" in second.config.read_text()
    assert 'old' not in second.config.read_text()
    second.row.cfg.model.teacher.config = str(tmp_path / 'new' / 'configs' / 'other.py')
    assert 'model.teacher.config' in second.obstacle


def test_who_learned_from_a_refused_run_is_refused(suite, tmp_path, fake_tools):
    first, second = runs_of(suite, tmp_path / 'work')[:2]
    carry_out(first, fake_tools(), print)
    carry_out(second, fake_tools(), print)
    first.row.cfg.train_dataloader.batch_size = 7
    assert second.obstacle == first.obstacle and second.scores is None
    with pytest.raises(UserError, match='batch_size'):
        carry_out(second, fake_tools(), print)


def test_who_learned_from_another_checkpoint_is_refused(suite, tmp_path, fake_tools):
    first, second = runs_of(suite, tmp_path / 'work')[:2]
    carry_out(first, fake_tools(), print)
    carry_out(second, fake_tools(), print)
    first.checkpoint.write_bytes(b'anew')
    assert first.obstacle is None and second.scores is None
    assert '(load_from, see' in second.obstacle


def test_what_is_done_is_not_done_again(suite, tmp_path, fake_tools):
    run = runs_of(suite, tmp_path / 'work')[0]
    carry_out(run, fake_tools(), print)
    assert run.state() == 'done' and run.config.is_file()
    run.scores_path.unlink()
    carry_out(run, fake_tools(train='sys.exit(1)'), print)
    assert run.state() == 'done'
    assert (run.folder / LOG).read_text().count('$ ') == 3


@pytest.mark.parametrize('bodies, words', [
    (dict(train="print('error: no such data'); print('bye'); sys.exit(2)"),
     'train.py said: error: no such data'),
    (dict(train="raise KeyError('road')"), "train.py said: KeyError: 'road'"),
    (dict(train='import os; os.kill(os.getpid(), 9)'), 'train.py was killed by signal 9'),
    (dict(train='pass'), 'its training left no iter_12.pth'),
    (dict(test='pass'), 'its test left no test_iter_12.json')])
def test_failures_are_sentences(suite, tmp_path, fake_tools, bodies, words):
    run = runs_of(suite, tmp_path / 'work')[0]
    with pytest.raises(RunFailed) as error:
        carry_out(run, fake_tools(**bodies), print)
    assert words in str(error.value) and str(run.folder) in str(error.value)


def test_row_without_its_source_fails(suite, tmp_path, fake_tools):
    run = runs_of(suite, tmp_path / 'work')[1]
    with pytest.raises(RunFailed, match="needs the checkpoint of 'a', which is not there"):
        carry_out(run, fake_tools(), print)


def test_progress_is_told(suite, tmp_path, fake_tools):
    run = runs_of(suite, tmp_path / 'work')[0]
    told = []
    carry_out(run, fake_tools(train="""
        import time
        logs = folder / '1' / 'vis_data'
        logs.mkdir(parents=True)
        (logs / 'scalars.json').write_text('{"step": 6, "loss": 1.0}')
        time.sleep(2.5)
        (folder / 'iter_12.pth').touch()"""), told.append)
    assert told == ['a, seed 0: iteration 6 of 12']


def test_curves_of_a_resumed_run(tmp_path):
    for name, lines in (('1', ['{"step": 1, "loss": 3.0}', '{"step": 2, "loss": 2.0}', '{"ste']),
                        ('2', ['{"step": 2, "loss": 1.5}', '{"step": 2, "mIoU": 40}'])):
        (tmp_path / name / 'vis_data').mkdir(parents=True)
        (tmp_path / name / 'vis_data' / 'scalars.json').write_text('\n'.join(lines))
    assert read_curves(tmp_path) == {'loss': {1: 3.0, 2: 1.5}, 'mIoU': {2: 40}}
    assert last_iteration(tmp_path) == 2
    assert last_iteration(tmp_path / 'absent') == 0


def lock_and_release(folder):
    lock(folder).close()


def test_one_process_at_a_time(tmp_path):
    with multiprocessing.get_context('fork').Pool(1) as pool:
        with lock(tmp_path):
            with pytest.raises(UserError, match='another process works on'):
                pool.apply(lock_and_release, (tmp_path,))
        pool.apply(lock_and_release, (tmp_path,))


def test_tools_that_outlive_a_suite_keep_the_lock(tmp_path):
    with lock(tmp_path):
        tool = subprocess.Popen([sys.executable, '-S', '-c', 'input()'], stdin=subprocess.PIPE,
                                close_fds=False)
    with pytest.raises(UserError, match='another process works on'):
        lock(tmp_path)
    tool.communicate(b'')
    lock(tmp_path).close()


def test_scores_are_read_back(suite, tmp_path):
    run = runs_of(suite, tmp_path / 'work')[0]
    assert isinstance(run.row, Row) and run.scores is None
    run.folder.mkdir(parents=True)
    run.scores_path.write_text(json.dumps({'summary': {'mIoU': 3.0}}))
    assert run.scores is None  # a test of another training
    torch.save({}, run.checkpoint)
    assert run.scores == {'summary': {'mIoU': 3.0}}
