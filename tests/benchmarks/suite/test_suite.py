from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from benchmarks.suite.suite import load_suite, set_iterations
from bhvit_seg.errors import UserError


@pytest.fixture
def write_suite(tiny_config, tmp_path):
    """A function that writes a suite of the tiny experiment, with more lines, and names it."""
    tiny_config()

    def write(*lines: str, rows: str = "[dict(name='one', config='tiny.py')]") -> Path:
        path = tmp_path / 'suite.py'
        path.write_text('\n'.join([f'rows = {rows}', *lines]) + '\n')
        return path

    return write


def test_suites_of_the_house_load(repository, tmp_path):
    paths = sorted((repository / 'configs' / 'suites').glob('*.py'))
    assert {path.stem for path in paths} == {
        'ablation', 'ablation_longer', 'dubai', 'epfl_roads', 'epfl_roads_longer', 'oscillation',
        'smoke'}
    suites = {path.stem: load_suite(path, data_root=tmp_path) for path in paths}
    for suite in suites.values():
        assert suite.title != suite.path.stem
        assert all(row.cfg.train_dataloader.dataset.data_root == str(tmp_path)
                   for row in suite.rows)
    for name in ('epfl_roads', 'dubai'):
        rows = {row.name: row for row in suites[name].rows}
        assert {'twin', 'binary', 'binary-unregularized', 'distilled-unregularized', 'distilled',
                'reactnet-18', 'binary-vit', 'segformer-b0'} <= set(rows)
        assert all(row.seeds == (0, 1) and row.iterations == 500 for row in rows.values())
        assert rows['distilled'].sources == {'twin': rows['twin']}
        hooks = {row: rows[row].cfg.default_hooks.weight_regularization.weight
                 for row in rows if row.startswith(('binary', 'distilled'))}
        assert hooks['binary'] == hooks['distilled'] == 0.1
        assert hooks['binary-unregularized'] == hooks['distilled-unregularized'] == 0
    assert len(suites['ablation'].rows) == 9
    assert len(suites['dubai'].classes) == 5


def test_defaults(write_suite):
    suite = load_suite(write_suite())
    row, = suite.rows
    assert (suite.title, suite.metrics, suite.classes) == ('suite', ('mIoU',),
                                                           ('background', 'road'))
    assert (row.seeds, row.iterations) == ((0,), 12)


def test_settings_of_rows_go_before_those_of_all(write_suite):
    suite = load_suite(write_suite(
        "size = (32, 32)", 'seeds = (3, 4)',
        "cfg_options = {'train_dataloader.batch_size': 3, 'optim_wrapper.optimizer.lr': 0.5}",
        rows="[dict(name='one', config='tiny.py', seeds=[3], "
             "cfg_options={'train_dataloader.batch_size': 4}), "
             "dict(name='two', config='tiny.py')]"))
    one, two = suite.rows
    assert one.cfg.train_dataloader.batch_size == 4 and one.seeds == (3,)
    assert two.cfg.train_dataloader.batch_size == 3 and two.seeds == (3, 4)
    assert one.cfg.optim_wrapper.optimizer.lr == two.cfg.optim_wrapper.optimizer.lr == 0.5
    more = load_suite(suite.path, seeds=[4, 7])
    assert [row.seeds for row in more.rows] == [(3, 4, 7), (3, 4, 7)]


def test_schedules_are_stretched(repository):
    cfg = Config.fromfile(str(
        repository / 'configs/bhvit/bhvit-tiny_distill-staged_segformer_1xb4-3k_rs-lvf-224x224.py'))
    set_iterations(cfg, 6000)
    warm_up, restarts = cfg.param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 200)
    assert (restarts.begin, restarts.end, restarts.periods) == (200, 6000, [2200, 3000, 600])
    assert cfg.train_cfg.val_interval == 1000 and cfg.default_hooks.checkpoint.interval == 500
    set_iterations(cfg, 7)
    assert sum(restarts.periods) >= cfg.param_scheduler[1].end - cfg.param_scheduler[1].begin
    assert cfg.train_cfg.max_iters == 7 and cfg.train_cfg.val_interval == 2


@pytest.mark.parametrize('lines, rows, words', [
    ([], '[]', 'has no rows'),
    ([], "'one'", 'has no rows'),
    ([], "['one']", "row 1 of the suite"),
    ([], "[dict(name='one')]", 'has no config'),
    ([], "[dict(name='a/b', config='tiny.py')]", 'no name of a folder'),
    ([], "[dict(name='one', config='absent.py')]", 'names the config absent.py, but there is no'),
    ([], "[dict(name='one', config='tiny.py', seed=1)]", "has a setting 'seed'"),
    ([], "[dict(name='one', config='tiny.py', seeds=[1, 1])]", 'has the seeds [1, 1]'),
    ([], "[dict(name='one', config='tiny.py')] * 2", "two rows 'one'"),
    ([], "[dict(name='one', config='tiny.py', checkpoints={'load_from': 'two'})]",
     "the checkpoint of 'two', which is no row before it"),
    ([], "[dict(name='a', config='tiny.py', seeds=(1,)), dict(name='b', config='tiny.py', "
     "checkpoints={'load_from': 'a'})]", "checkpoint of 'a', which has no seed 0"),
    ([], "[dict(name='one', config='tiny.py', cfg_options={'modle.x': 1})]", 'did you mean model?'),
    (["metrics = ('mIoU', 'IoU.raod')"], None, "the metric 'IoU.raod', which there is not"),
    (["metrics = ('mAP',)"], None, "the metric 'mAP'"),
    (['iterations = 0'], None, 'iterations is 0'),
    (['seeds = (-1,)'], None, 'has the seeds (-1,)'),
    (['size = 224'], None, 'has size=224'),
    (["metrics = 'mIoU'"], None, "has metrics='mIoU': give a list"),
    (['metrics = 5'], None, 'has metrics=5: give a list'),
    (["cfg_options = ['a']"], None, "has cfg_options=['a']: give a dict"),
    ([], "[dict(name='one', config='tiny.py', cfg_options=5)]", 'has cfg_options=5: give a dict'),
    ([], "[dict(name='one', config='tiny.py', checkpoints=['a'])]",
     "has checkpoints=['a']: give a dict"),
    (['row = 3'], None, "has a setting 'row'"),
    (["data_root = 'no/such/folder'"], None, 'no folder at no/such/folder'),
    (['metrics = ('], None, 'cannot be read'),
])
def test_mistakes_end_in_a_sentence(write_suite, lines, rows, words):
    path = write_suite('size = (32, 32)', *lines, **({} if rows is None else {'rows': rows}))
    with pytest.raises(UserError) as error:
        load_suite(path)
    assert words in str(error.value) and '\n' not in str(error.value)


def test_other_classes_do_not_compare(write_suite, tiny_config):
    tiny_config("metainfo.update(classes=('a', 'b'))",
                "test_dataloader['dataset']['metainfo'] = metainfo", name='other')
    path = write_suite('size = (32, 32)', rows="[dict(name='one', config='tiny.py'), "
                                               "dict(name='two', config='other.py')]")
    with pytest.raises(UserError, match="the row 'two' .* has the classes a, b"):
        load_suite(path)


def test_missing_suite(tmp_path):
    with pytest.raises(UserError, match='no suite at .*absent.py'):
        load_suite(tmp_path / 'absent.py')


def test_classifiers_are_refused(write_suite, tiny_config):
    tiny_config("default_scope = 'mmpretrain'", name='classifier')
    with pytest.raises(UserError, match="the row 'one' .* is for mmpretrain"):
        load_suite(write_suite(rows="[dict(name='one', config='classifier.py')]"))


def test_training_by_epochs_is_refused(write_suite, tiny_config):
    tiny_config("train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=2)", name='epochs')
    with pytest.raises(UserError, match='trains by epochs'):
        load_suite(write_suite(rows="[dict(name='one', config='epochs.py')]"))
