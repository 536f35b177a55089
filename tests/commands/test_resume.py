"""A training that is killed again and again ends exactly where an undisturbed one ends.

tests/training/test_recipe.py does the same with BHViT and all of its hooks.
"""

import contextlib
import json
import multiprocessing
import random
import time
from pathlib import Path

import torch
from equality import assert_same

from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.train import train

ITERATIONS = 12
# What a clock decides, not the training.
CLOCK = {'time', 'data_time', 'eta'}
# Workers that load ahead, an average, accumulated gradients, a seed that is drawn.
LINES = ('train_dataloader.update(num_workers=2, persistent_workers=True)',
         "custom_hooks = [dict(type='EMAHook', momentum=0.1)]",
         'optim_wrapper.update(accumulative_counts=2)',
         'randomness = dict(seed=None, _delete_=True)')


def finish(process) -> None:
    process.join(timeout=120)
    assert process.exitcode == 0


def logged(work_dir: Path) -> dict[tuple[str, int], list[dict]]:
    """Return what all runs in ``work_dir`` logged, by kind (train or val) and step."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    assert files
    lines: dict[tuple[str, int], list[dict]] = {}
    for text in (text for file in files for text in file.read_text().splitlines()):
        with contextlib.suppress(json.JSONDecodeError):  # the line at which it was killed
            line = json.loads(text)
            lines.setdefault(('loss' in line, line['step']), []).append(
                {name: value for name, value in line.items() if name not in CLOCK})
    return lines


def test_killed_training_equals_undisturbed(tiny_config, tmp_path):
    # Processes forked from one that has the mm stack imported: a second each, not five.
    processes = multiprocessing.get_context('forkserver')
    processes.set_forkserver_preload(['bhvit_seg.training.train'])

    def start(work_dir: Path, **kwargs):
        process = processes.Process(target=train, args=(config,), kwargs={
            'work_dir': work_dir, 'cfg_options': {'log_level': 'ERROR'}, **kwargs})
        process.start()
        return process

    config = tiny_config(*LINES)
    undisturbed, killed = tmp_path / 'undisturbed', tmp_path / 'killed'
    begun = time.monotonic()
    finish(start(undisturbed))
    duration = time.monotonic() - begun
    want = load_checkpoint_safely(undisturbed / f'iter_{ITERATIONS}.pth')

    chance = random.Random(0)
    for number in range(3):
        # A training without a seed draws one: only the first run is told which.
        told = not list(killed.glob('iter_*.pth'))
        process = start(killed, resume=True, seed=want['meta']['seed'] if told else None)
        if number % 2:  # while a checkpoint is half written
            while process.is_alive() and not list(killed.glob('.iter_*.partial*')):
                time.sleep(0.0002)
        else:
            process.join(timeout=chance.uniform(0.3, 1.0) * duration)
        process.kill()
        process.join(timeout=60)
    finish(start(killed, resume=True))

    expected, got = logged(undisturbed), logged(killed)
    assert {step for training, step in expected if training} == set(range(1, ITERATIONS + 1))
    assert set(got) == set(expected)
    for key, repeats in got.items():
        for line in repeats:
            assert line == expected[key][0], key
    have = load_checkpoint_safely(killed / f'iter_{ITERATIONS}.pth')
    for part in ('state_dict', 'optimizer', 'param_schedulers', 'ema_state_dict'):
        assert_same(want.get(part), have.get(part), part)
    assert want['message_hub']['runtime_info']['best_score'] == \
        have['message_hub']['runtime_info']['best_score']
    assert {path.name for path in undisturbed.glob('*.pth')} == {
        path.name for path in killed.glob('*.pth')}
    assert not list(killed.glob('.*partial*'))


NO_VALIDATION = ('val_cfg = None', 'val_dataloader = None', 'val_evaluator = None')


def test_own_checkpoints_go_before_weights_to_start_from(tiny_config, tmp_path, capsys):
    # The weights' checkpoint is a whole one, which could be resumed from as well.
    short = 'train_cfg.update(max_iters=2)', *NO_VALIDATION
    train(tiny_config(*short), work_dir=tmp_path / 'first')
    weights = tmp_path / 'first' / 'iter_2.pth'
    again = tiny_config(*short, f"load_from = '{weights}'", name='again')
    for said in ('nothing to resume from', ''):
        runner = train(again, work_dir=tmp_path / 'second', resume=True)
        assert runner.iter == 2 and said in capsys.readouterr().out
        assert runner.cfg.resume == (not said)
    old, new = (load_checkpoint_safely(folder / 'iter_2.pth')['state_dict'][
        'decode_head.conv_seg.weight'] for folder in (tmp_path / 'first', tmp_path / 'second'))
    assert not torch.equal(old, new)
    onwards = tiny_config('train_cfg.update(max_iters=3)', *NO_VALIDATION,
                          f"load_from = '{weights}'", 'resume = True', name='onwards')
    assert train(onwards, work_dir=tmp_path / 'third').iter == 3
    assert not (tmp_path / 'third' / 'iter_2.pth').exists()


def test_validation_that_was_cut_off_is_made_up_for(tiny_config, tmp_path):
    # As if killed between the checkpoint and the validation of iteration 4.
    short = 'train_cfg.update(max_iters=4)'
    train(tiny_config(short, *NO_VALIDATION), work_dir=tmp_path)
    assert not list(tmp_path.glob('best_*'))
    for _ in range(2):
        train(tiny_config(short), work_dir=tmp_path, resume=True)
        checkpoint = load_checkpoint_safely(tmp_path / 'iter_4.pth')
        information = checkpoint['message_hub']['runtime_info']
        assert information['best_ckpt'] == str(tmp_path / 'best_mIoU_iter_4.pth')
        assert (tmp_path / 'best_mIoU_iter_4.pth').is_file()
        # Once: the second time it is known to be done.
        assert len(checkpoint['message_hub']['log_scalars']['val/mIoU'].data[0]) == 1
