"""The demonstration from the sample set to the contact sheet, with few scenes and iterations."""

import sys

import numpy as np
from PIL import Image

import bhvit_seg.native
from bhvit_seg.commands import demonstration
from bhvit_seg.commands.demo import CONFIG
from bhvit_seg.commands.demonstration import MARGIN
from bhvit_seg.shipped import find_config


def test_demo_leaves_its_picture_and_goes_on_where_it_stopped(engine, tmp_path, monkeypatch,
                                                              capsys):
    for name, value in (('N_TRAIN', 4), ('N_VAL', 2), ('SIZE', 64)):
        monkeypatch.setattr(demonstration, name, value)
    config, out = tmp_path / 'config.py', tmp_path / 'out'
    config.write_text(
        f'_base_ = {str(find_config(CONFIG))!r}\n'
        'model = dict(data_preprocessor=dict(size=(64, 64)))\n'
        'train_pipeline = _base_.train_pipeline\n'
        'train_pipeline[2].update(crop_size=(64, 64))\n'
        'train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,\n'
        '                        dataset=dict(pipeline=train_pipeline))\n'
        'val_dataloader = dict(num_workers=0, persistent_workers=False)\n'
        'test_dataloader = val_dataloader\n'
        'train_cfg = dict(max_iters=2, val_interval=2)\n')
    # Without the engine first: the demonstration has to go on.
    with monkeypatch.context() as without_engine:
        without_engine.setitem(sys.modules, 'bhvit_seg.native._engine', None)
        without_engine.delattr(bhvit_seg.native, '_engine', raising=False)
        sheet = demonstration.run_demo(config, out)
    assert sheet == out / 'contact_sheet.png'
    assert Image.open(sheet).width == 4 * (64 + MARGIN) + MARGIN
    assert 'left out: the engine' in capsys.readouterr().out
    before = (out / 'work_dir' / 'iter_2.pth').stat().st_mtime_ns
    sheet.unlink()
    demonstration.run_demo(config, out)
    assert Image.open(sheet).width == 5 * (64 + MARGIN) + MARGIN
    assert (out / 'work_dir' / 'iter_2.pth').stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    assert 'road IoU' in printed and 'from bits: ' in printed and 'ms an image' in printed
    labels, from_bits = ([np.asarray(Image.open(path)) for path in sorted(
        (out / name / 'labels').iterdir())] for name in ('predictions', 'predictions_from_bits'))
    assert len(labels) == len(from_bits) == 2
    # Two iterations in: a network that knows nothing yet is as sensitive as can be.
    assert np.mean([a != b for a, b in zip(labels, from_bits)]) < 0.1
