import os
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


def test_training_from_elsewhere_leaves_checkpoints_in_the_work_dir(tiny_config, main, tmp_path):
    main([str(tiny_config(SHORT)), '--cfg-options', 'optim_wrapper.optimizer.lr=0.002', '--seed',
          '7'])
    work_dir = tmp_path / 'work_dirs' / 'tiny'
    checkpoint = load_checkpoint_safely(work_dir / 'iter_2.pth')
    assert checkpoint['meta']['seed'] == 7
    assert checkpoint['optimizer']['param_groups'][0]['initial_lr'] == 0.002
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'iter_2.pth')


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
    assert 'passed over: ' in (said := capsys.readouterr().out) and str(last) in said
    assert runner.iter == 6
    assert load_checkpoint_safely(moved / 'iter_6.pth')['meta']['iter'] == 6


@pytest.mark.parametrize('options, words', [
    (['no/such/config.py'], 'no config at'),
    (['CONFIG', '--data-root', 'nowhere'], 'nowhere'),
    (['CONFIG', '--resume', 'nowhere.pth'], 'no checkpoint at nowhere.pth'),
    (['CONFIG', '--cfg-options', 'train_dataloadr.batch_size=3'], 'train_dataloadr'),
    (['CONFIG', '--cfg-options', 'max_iters=3'], 'max_iters'),
    (['CONFIG', '--cfg-options', 'train_pipeline.77.type=X'], 'train_pipeline.77'),
    (['CONFIG', '--cfg-options', 'model.backbone.type.x=3'], 'model.backbone.type.x'),
    (['CONFIG', '--cfg-options', 'lr'], 'KEY=VALUE'),
    (['CONFIG', '--cfg-options', 'model.decode_head.depht=3'], 'depht'),
    (['CONFIG', '--cfg-options', 'model.backbone.type=UNett'], 'UNett'),
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


class Payload:
    """Pickles to a call of ``os.system``."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize('spoil, words', [
    (lambda content, mark: b'weights', "not a checkpoint of torch: it begins with b'weights'"),
    (lambda content, mark: b'BHVITSEG' + bytes(50), 'is a packed model'),
    (lambda content, mark: b'\x80\x02weights', 'is not a checkpoint of torch, or is damaged'),
    (lambda content, mark: torch.ones(2), 'Tensor'),
    (lambda content, mark: {**content, 'x': Payload(f'touch {mark}')}, 'could run code'),
    (lambda content, mark: {'state_dict': content['state_dict']}, 'holds weights only'),
])
def test_checkpoints_that_cannot_be_resumed(spoil, words, trained, tmp_path, main, sentence):
    config, checkpoint = trained
    path, mark = tmp_path / 'given.pth', tmp_path / 'ran'
    content = spoil(load_checkpoint_safely(checkpoint), mark)
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    said = sentence(main, config, '--work-dir', tmp_path / 'work', '--resume', path)
    assert words in said and 'given.pth' in said and 'weights_only' not in said
    assert not mark.exists()


def test_options_are_read_as_mmengine_reads_them(tiny_config, tmp_path):
    assert parse_options(['a.b=1', 'c=[1,2]', 'd=(0.5,x)', 'e=None', 'f=a=b']) == {
        'a.b': 1, 'c': [1, 2], 'd': (0.5, 'x'), 'e': None, 'f': 'a=b'}
    # A new setting of a part is handed to its class.
    new = {'model.backbone.with_cp': True, 'compile': False,
           'train_cfg.dynamic_intervals': [(0, 2)], 'param_scheduler.0.eta_min': 1e-5,
           'default_hooks.checkpoint.rule': 'greater',
           'default_hooks.checkpoints': {'type': 'CheckpointHook'},
           'model.backbone.norm_cfg.requires_grad': False, 'env_cfg.dist_cfg.timeout': 9,
           'optim_wrapper.optimizer.amsgrad': True, 'train_dataloader.drop_last': True,
           'train_dataloader.dataset.reduce_zero_label': False,
           'model.decode_head.loss_decode.avg_non_ignore': True}
    cfg = load_config(tiny_config(), new, data_root=tmp_path)
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == str(tmp_path)
    assert cfg.model.backbone.with_cp is True
    with pytest.raises(UserError, match='modle'):
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
