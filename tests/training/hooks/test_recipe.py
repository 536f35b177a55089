"""The whole recipe at once: killed and resumed, and by two processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from benchmarks.training import full_precision_twin
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.hooks.weight_record import FILE
from bhvit_seg.training.train import train

ITERATIONS = 14
BHVIT = """model.update(
    backbone=dict(
        type='BHViT', drop_path_rate=0.3, arch=dict(
            depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(16, 32, 64, 128),
            num_heads=(1, 1, 2, 4))),
    decode_head=dict(
        type='BinarySegformerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3],
        channels=16, num_classes=2, dropout_ratio=0.1,
        loss_decode=dict(type='CrossEntropyLoss')))"""
RECIPE = f"""train_cfg.update(max_iters={ITERATIONS}, val_interval=4)
param_scheduler[0].update(end={ITERATIONS})
optim_wrapper.update(optimizer=dict(type='AdamW', lr=0.02))
default_hooks.update(
    weight_regularization=dict(type='WeightRegularizationHook', weight=0.1, begin=0.4),
    statistics=dict(type='WeightStatisticsHook', interval=3, figure_interval=100),
    freezing=dict(type='OscillationFreezingHook', begin=0.1, window=5, threshold=(0.3, 0.1)),
    reestimation=dict(type='BatchNormReestimationHook', num_batches=3))"""


@pytest.fixture
def recipe(tiny_config, tmp_path):
    """A config of all of it; the teacher is a twin with random weights."""
    model = Config.fromfile(tiny_config(BHVIT, name='student')).model
    init_default_scope('mmseg')
    torch.manual_seed(1)
    teacher = MODELS.build(full_precision_twin(model))
    torch.save({'state_dict': teacher.state_dict(), 'meta': {}}, tmp_path / 'teacher.pth')
    config = tiny_config(BHVIT, "model['backbone'].update(binary=False)",
                         "model['decode_head'].update(binary=False)", name='twin')
    distillation = (
        f"model.update(type='DistillationSegmentor', teacher=dict(config={str(config)!r}, "
        f"checkpoint={str(tmp_path / 'teacher.pth')!r}))")
    return tiny_config(BHVIT, RECIPE, distillation, name='recipe')


def logged(work_dir) -> dict[tuple, dict]:
    """What was logged last in ``work_dir``, by what it is about and step; no times."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    assert files
    lines = {}
    for text in (text for file in files for text in file.read_text().splitlines()):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # the line at which the process was killed
        values = {name: value for name, value in line.items()
                  if name not in ('time', 'data_time', 'eta')}
        lines[min(values.keys() - {'step', 'iter', 'lr'}), values['step']] = values
    return lines


def assert_equal(left, right, path: str) -> None:
    """Compare nested containers of tensors and numbers exactly."""
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_equal(left[key], right[key], f'{path}.{key}')
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for number, pair in enumerate(zip(left, right)):
            assert_equal(*pair, f'{path}.{number}')
    else:
        assert torch.equal(left, right) if torch.is_tensor(left) else left == right, path


@pytest.fixture
def train_until():
    """A function that trains in a process, kills it once a file is there, and says how it ended."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['bhvit_seg.training.train'])

    def run(config, work_dir, file: str) -> int:
        process = context.Process(target=train, args=(config,), kwargs=dict(
            work_dir=work_dir, resume=True, cfg_options={'log_level': 'ERROR'}))
        process.start()
        while process.is_alive() and not (work_dir / file).exists():
            time.sleep(0.002)
        process.kill()
        process.join(timeout=60)
        return process.exitcode

    return run


def test_killed_training_equals_an_undisturbed_one(recipe, tmp_path, train_until):
    assert train_until(recipe, tmp_path / 'whole', 'never') == 0
    # After the first freezing and the begin of the regularization; and with nothing left to do but
    # the last validation, or not even that.
    ends = [train_until(recipe, tmp_path / 'cut', f'iter_{iteration}.pth')
            for iteration in (10, ITERATIONS)]
    assert -signal.SIGKILL in ends
    assert train_until(recipe, tmp_path / 'cut', 'never') == 0

    whole, cut = (load_checkpoint_safely(tmp_path / name / f'iter_{ITERATIONS}.pth')
                  for name in ('whole', 'cut'))
    parts = ('state_dict', 'optimizer', 'param_schedulers', 'weight_statistics',
             'oscillation_freezing')
    for part in parts:
        assert_equal(whole[part], cut[part], part)
    assert any('frozen' in state for state in whole['oscillation_freezing']['weights'].values())
    assert (tmp_path / 'cut' / FILE).read_bytes() == (tmp_path / 'whole' / FILE).read_bytes()
    expected, got = logged(tmp_path / 'whole'), logged(tmp_path / 'cut')
    assert {key for key in got if key in expected} == got.keys()
    assert all(got[key] == expected[key] for key in got)
    last = next(line for (_, step), line in expected.items()
                if step == ITERATIONS and 'loss' in line)
    assert last['loss_weight_regularization'] > 0 and last['loss_distillation'] > 0


def train_as(rank: int, port: int, config, work_dir) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    runner = train(config, work_dir=work_dir, launcher='pytorch')
    checkpoint = {}
    runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
    torch.save([runner.model.module.state_dict(), checkpoint], work_dir / f'rank{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_stay_the_same(recipe, tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    mp.start_processes(train_as, (port, recipe, tmp_path), 2, start_method='fork')
    first, second = (torch.load(tmp_path / f'rank{rank}.pth', weights_only=True)
                     for rank in range(2))
    assert_equal(first[0], second[0], 'weights and statistics')
    assert_equal(first[1], second[1], 'hooks')
    record = json.loads((tmp_path / FILE).read_text())
    assert record == first[1]['weight_statistics']['record']
    assert [look['iteration'] for look in record['looks']] == [3, 6, 9, 12]
    assert first[1]['oscillation_freezing']['steps'] == ITERATIONS - 2 - 2 * 5
