"""Training with unlabelled images in every batch: killed and resumed, and without a teacher."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from bhvit_seg.errors import UserError
from bhvit_seg.models.segmentors import DistillationSegmentor
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.config import load_config
from bhvit_seg.training.config_check import check_config
from bhvit_seg.training.train import train

MODEL = dict(
    type='EncoderDecoder', data_preprocessor=dict(
        type='MultiChannelSegDataPreProcessor', mean=[120., 110., 100.], std=[60., 55., 50.],
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(32, 32)),
    backbone=dict(type='BHViT', pretrain_img_size=32, drop_path_rate=0.2, arch=dict(
        depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(8, 16, 32, 64),
        num_heads=(1, 1, 2, 4))),
    decode_head=dict(
        type='BinarySegformerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3],
        channels=16, num_classes=2, loss_decode=dict(type='WeightedCrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
CROP = [dict(type='RandomScaleCrop', crop_size=32, ratio_range=(0.5, 1.5)),
        dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]


@pytest.fixture
def config(tmp_path):
    """A function that writes the config of a training on generated images."""
    rng = np.random.default_rng(0)
    for place, channels, number in (('images/train', 3, 3), ('annotations/train', 1, 3),
                                    ('more', 3, 4)):
        (tmp_path / place).mkdir(parents=True)
        for index in range(number):
            pixels = rng.integers(0, 256, (40, 40, channels), np.uint8)
            assert cv2.imwrite(str(tmp_path / place / f'{index}.png'),
                               pixels if channels == 3 else pixels // 128)

    def write(**model) -> Path:
        dataset = dict(
            type='PartlyLabelledDataset', share=0.5, dataset=dict(
                type='RSLVFDataset', data_root=str(tmp_path), pipeline=[
                    dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations'), *CROP]),
            unlabelled=dict(type='UnlabelledDataset', images=str(tmp_path / 'more'),
                            pipeline=[dict(type='LoadUnlabelledImage'), *CROP]))
        settings = dict(
            default_scope='mmseg', custom_imports=dict(imports=['bhvit_seg.modules']),
            model={**MODEL, **model},
            train_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset,
                                  sampler=dict(type='InfiniteSampler', shuffle=True)),
            train_cfg=dict(type='ResumableTrainLoop', max_iters=6), randomness=dict(seed=0),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                checkpoint=dict(type='ResumableCheckpointHook', by_epoch=False, interval=2)),
            custom_hooks=[dict(type='DatasetCheckHook'), dict(type='NonFiniteLossHook')],
            log_processor=dict(by_epoch=False), log_level='ERROR')
        path = tmp_path / 'config.py'
        path.write_text('\n'.join(f'{key} = {value!r}' for key, value in settings.items()))
        return path

    return write


@pytest.fixture
def taught(tmp_path):
    init_default_scope('mmseg')
    torch.manual_seed(5)
    torch.save({'state_dict': MODELS.build(MODEL).state_dict()}, tmp_path / 'teacher.pth')
    return dict(type='DistillationSegmentor', distillation_weight=0.5,
                student_distortion=dict(type='StrongDistortion'),
                teacher=dict(config=MODEL, checkpoint=str(tmp_path / 'teacher.pth')))


def test_killed_and_resumed_equals_undisturbed(config, taught, tmp_path, monkeypatch):
    path = config(**taught)
    train(path, work_dir=tmp_path / 'undisturbed')
    loss, calls, batches = DistillationSegmentor.loss, itertools.count(), []

    def dying(self, inputs, data_samples):
        if next(calls) == 3:
            raise KeyboardInterrupt
        batches.append([sample.gt_sem_seg.data.min().item() for sample in data_samples])
        return loss(self, inputs, data_samples)

    monkeypatch.setattr(DistillationSegmentor, 'loss', dying)
    with pytest.raises(KeyboardInterrupt):
        train(path, work_dir=tmp_path / 'killed')
    monkeypatch.undo()
    assert all(first < 2 and second == 254 for first, second in batches) and len(batches) == 3
    train(path, work_dir=tmp_path / 'killed', resume=True)
    want, have = (load_checkpoint_safely(tmp_path / name / 'iter_6.pth')
                  for name in ('undisturbed', 'killed'))
    assert want['state_dict'].keys() == have['state_dict'].keys()
    assert all(torch.equal(value, have['state_dict'][name])
               for name, value in want['state_dict'].items())
    losses, resumed = (list(content['message_hub']['log_scalars']['train/loss'].data[0])
                       for content in (want, have))
    assert losses == resumed and len(set(losses)) == 6


def test_unlabelled_images_need_a_teacher_and_the_loop_that_keeps_their_share(
        config, taught, tmp_path):
    with pytest.raises(UserError, match='PartlyLabelledDataset.*EncoderDecoder has no teacher'):
        train(config(), work_dir=tmp_path / 'work')
    cfg = load_config(config(**taught))
    assert check_config(cfg) == ([], [])
    cfg.train_cfg.type = 'IterBasedTrainLoop'
    problem, = check_config(cfg)[0]
    assert 'train_cfg.type is IterBasedTrainLoop' in problem
    cfg = load_config(config())
    cfg.train_dataloader.dataset = cfg.train_dataloader.dataset.dataset
    assert check_config(cfg) == ([], [])
    cfg.train_dataloader.dataset.pipeline[1].keep_unlabelled = True
    problem, = check_config(cfg)[0]
    assert 'LoadAerialAnnotations' in problem and 'no teacher' in problem
