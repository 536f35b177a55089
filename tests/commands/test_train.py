from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mmseg
import pytest
import torch

from bhvit_seg.errors import UserError
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.config import load_config, parse_options
from bhvit_seg.training.train import train

SHORT = 'train_cfg.update(max_iters=2, val_interval=2)'


@pytest.fixture
def main(tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tool('tools/train.py')


def test_training_from_elsewhere_leaves_checkpoints_in_the_work_dir(tiny_config, run_tool,
                                                                   tmp_path):
    run = run_tool('tools/train.py', tiny_config(SHORT), '--cfg-options',
                   'optim_wrapper.optimizer.lr=0.002', '--seed', '7')
    assert run.returncode == 0, run.stderr
    assert 'OneDL' not in run.stdout and 'Warning' not in run.stderr
    work_dir = tmp_path / 'work_dirs' / 'tiny'
    checkpoint = load_checkpoint_safely(work_dir / 'iter_2.pth')
    assert checkpoint['meta']['seed'] == 7
    assert checkpoint['optimizer']['param_groups'][0]['initial_lr'] == 0.002
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'iter_2.pth')


def test_data_root_reaches_every_dataset(tiny_config, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    cfg = load_config(tiny_config(), data_root=tmp_path / 'elsewhere')
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == str(tmp_path / 'elsewhere')


def test_dataset_is_checked_before_the_first_iteration(tiny_config, tiny_data, tmp_path, main,
                                                       sentence):
    shutil.copytree(tiny_data, tmp_path / 'data')
    (tmp_path / 'data' / 'annotations' / 'train' / '3.png').unlink()
    config = tiny_config(SHORT, "custom_hooks = [dict(type='DatasetCheckHook')]")
    said = sentence(main, config, '--data-root', tmp_path / 'data', '--work-dir', tmp_path / 'w')
    assert '3.png' in said
    assert not list((tmp_path / 'w').glob('*.pth'))


def test_resuming_from_a_moved_work_dir_and_a_damaged_last_checkpoint(tiny_config, tmp_path,
                                                                      capsys):
    train(tiny_config('train_cfg.update(max_iters=4, val_interval=4)'), work_dir=tmp_path / 'old')
    moved = tmp_path / 'moved'
    (tmp_path / 'old').rename(moved)
    last = moved / 'iter_4.pth'
    last.write_bytes(last.read_bytes()[:1000])
    capsys.readouterr()
    runner = train(tiny_config('train_cfg.update(max_iters=6, val_interval=6)'), work_dir=moved,
                   resume=True)
    assert 'iter_4.pth' in capsys.readouterr().out
    assert runner.iter == 6
    assert load_checkpoint_safely(moved / 'iter_6.pth')['meta']['iter'] == 6


def test_resuming_from_a_named_checkpoint(trained, tmp_path):
    config, checkpoint = trained
    runner = train(config, work_dir=tmp_path, resume=checkpoint,
                   cfg_options={'train_cfg.max_iters': 5, 'default_hooks.checkpoint.interval': 1})
    assert runner.iter == 5 and not (tmp_path / 'iter_4.pth').exists()


@pytest.mark.parametrize('options, words', [
    (['no/such/config.py'], 'no config at'),
    (['CONFIG', '--data-root', 'nowhere'], 'nowhere'),
    (['CONFIG', '--resume', 'nowhere.pth'], 'no checkpoint at nowhere.pth'),
    (['CONFIG', '--cfg-options', 'train_dataloadr.batch_size=3'], 'train_dataloader'),
    (['CONFIG', '--cfg-options', 'max_iters=3'], 'max_iters'),
    (['CONFIG', '--cfg-options', 'model.backbone.depth.x=3'], 'model.backbone.depth'),
    (['CONFIG', '--cfg-options', 'train_pipeline.77.type=X'], 'train_pipeline.77'),
    (['CONFIG', '--cfg-options', 'model.backbone.type.x=3'], 'no settings of its own'),
    (['CONFIG', '--cfg-options', 'lr'], 'KEY=VALUE'),
    (['CONFIG', '--cfg-options', 'model.decode_head.in_index=[(1]'], 'cannot be read'),
    (['CONFIG', '--cfg-options', 'model.backbone.depht=3'], 'depht'),
    (['CONFIG', '--cfg-options', 'model.backbone.type=UNett'], 'UNett'),
    (['CONFIG', '--cfg-options', 'train_dataloader.batch_sise=3'], 'batch_sise'),
    (['CONFIG', '--amp'], '--amp needs a GPU'),
    (['CONFIG', '--launcher', 'pytorch'], 'torchrun'),
    (['CONFIG', '--work-dir', '/dev/null/x'], '--work-dir'),
])
def test_bad_input_is_one_sentence(options, words, tiny_config, main, sentence, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.delenv('RANK', raising=False)
    config = tiny_config(SHORT)
    said = sentence(main, *[config if option == 'CONFIG' else option for option in options])
    assert words in said


def test_unknown_flag_is_an_error(tiny_config, main, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(tiny_config()), '--fast'])
    assert end.value.code == 2 and '--fast' in capsys.readouterr().err


def test_broken_and_partial_configs_are_told(tmp_path, repository, main, sentence):
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(\n')
    assert 'broken.py cannot be read' in sentence(main, broken)
    part = repository / 'configs' / '_base_' / 'default_runtime.py'
    assert 'lacks model' in sentence(main, part)


@pytest.mark.parametrize('kind, words', [
    ('text', 'not a checkpoint'), ('truncated', 'only a part of one'), ('tensor', 'Tensor'),
    ('code', 'could run code'), ('weights', 'holds weights only'),
    ('other', 'is not of this model'),
])
def test_checkpoints_that_cannot_be_resumed(kind, words, trained, tmp_path, main, sentence):
    config, checkpoint = trained
    path, mark = tmp_path / 'given.pth', tmp_path / 'ran'
    content = load_checkpoint_safely(checkpoint)
    if kind == 'text':
        path.write_text('weights')
    elif kind == 'truncated':
        path.write_bytes(checkpoint.read_bytes()[:-2000])
    elif kind == 'tensor':
        torch.save(torch.ones(2), path)
    elif kind == 'code':
        torch.save({**content, 'x': Payload(f'touch {mark}')}, path)
    elif kind == 'weights':
        torch.save({'state_dict': content['state_dict']}, path)
    else:
        weights = content['state_dict']
        weights['decode_head.conv_seg.weight'] = torch.ones(7, 4, 1, 1)
        torch.save({**content, 'state_dict': weights}, path)
    said = sentence(main, config, '--work-dir', tmp_path / 'work', '--resume', path)
    assert words in said and 'given.pth' in said
    assert not mark.exists()
    if kind == 'other':
        assert 'decode_head.conv_seg.weight ((7, 4, 1, 1) instead of (2, 4, 1, 1))' in said


class Payload:
    """Pickles to a call of ``os.system``."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_options_are_read_as_mmengine_reads_them():
    assert parse_options(['a.b=1', 'c=[1,2]', 'd=(0.5,x)', 'e=None', 'f=a=b']) == {
        'a.b': 1, 'c': [1, 2], 'd': (0.5, 'x'), 'e': None, 'f': 'a=b'}


def test_new_setting_of_a_part_is_handed_to_its_class(tiny_config):
    cfg = load_config(tiny_config(), {'model.backbone.with_cp': True, 'compile': False})
    assert cfg.model.backbone.with_cp is True
    with pytest.raises(UserError, match='did you mean model'):
        load_config(tiny_config(), {'modle': 3})


def test_stock_tool_trains_our_config(tiny_config, repository, tmp_path):
    stock = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'train.py'
    if not stock.is_file():
        pytest.skip(f'this mmseg has no tools at {stock}')
    run = subprocess.run(
        [sys.executable, str(stock), str(tiny_config(SHORT)), '--work-dir', str(tmp_path / 'w')],
        cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(repository)}, capture_output=True,
        text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / 'w' / 'iter_2.pth').is_file()


@pytest.mark.slow
def test_two_processes_resume_to_the_same_curve(tiny_config, repository, tmp_path):
    def run(work_dir, iterations, *options):
        config = tiny_config(f'train_cfg.update(max_iters={iterations}, val_interval=4)',
                             'param_scheduler = []')
        result = subprocess.run(
            [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
             str(repository / 'tools' / 'train.py'), str(config), '--launcher', 'pytorch',
             '--work-dir', str(tmp_path / work_dir), *options],
            cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(repository)},
            capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]

    def losses(work_dir):
        files = sorted((tmp_path / work_dir).glob('*/vis_data/scalars.json'))
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return {line['step']: line['loss'] for line in lines if 'loss' in line}

    run('whole', 8)
    run('parts', 4)
    run('parts', 8, '--resume')
    assert len(losses('whole')) == 8
    assert losses('parts') == losses('whole')
