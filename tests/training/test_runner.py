import subprocess
import sys

import pytest

from bhvit_seg.errors import UserError
from bhvit_seg.training.config import load_config
from bhvit_seg.training.runner import ResumingRunner
from bhvit_seg.training.train import train


def test_runners_of_one_second_share_nothing(tiny_config, tmp_path):
    hubs = []
    for name in ('one', 'other', 'third'):
        cfg = load_config(tiny_config())
        cfg.work_dir = str(tmp_path / name)
        runner = ResumingRunner.from_cfg(cfg)
        hubs.append(runner.message_hub)
        runner.logger.info(f'this is {name}')
        log, = (tmp_path / name).glob('*/*.log')
        assert f'this is {name}' in log.read_text()
    assert len(set(map(id, hubs))) == 3


LOCKS = """
import sys
from bhvit_seg.training.train import sole_training
with sole_training(sys.argv[1]):
    print('locked', flush=True)
    sys.stdin.read()
"""


def test_a_work_dir_takes_one_training_at_a_time(tiny_config, tmp_path):
    with subprocess.Popen([sys.executable, '-c', LOCKS, tmp_path], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == 'locked\n'
        with pytest.raises(UserError, match=rf'another training runs in {tmp_path}.*--work-dir'):
            train(tiny_config(), work_dir=tmp_path)
        assert not list(tmp_path.glob('*.pth'))
        other.kill()
    train(tiny_config(), work_dir=tmp_path, cfg_options={'train_cfg.max_iters': 1})
    assert (tmp_path / 'iter_1.pth').is_file()
