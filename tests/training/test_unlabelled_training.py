"""Training with unlabelled images in every batch: killed and resumed, and without a teacher."""

from __future__ import annotations

import itertools

import pytest
from equality import assert_same

from bhvit_seg.errors import UserError
from bhvit_seg.models.segmentors import DistillationSegmentor
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.config import load_config
from bhvit_seg.training.config_check import check_config
from bhvit_seg.training.train import train

MIXED = """
crop = [dict(type='RandomScaleCrop', crop_size=32, ratio_range=(0.5, 1.5)),
        dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
train_dataloader['dataset'] = dict(
    type='PartlyLabelledDataset', share=0.5,
    dataset=dict(type='RSLVFDataset', data_root=data_root, pipeline=[
        dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations'), *crop]),
    unlabelled=dict(type='UnlabelledDataset', images=data_root + '/images/val', pipeline=[
        dict(type='LoadUnlabelledImage'), *crop]))
train_cfg.update(max_iters=6)
param_scheduler = []
val_dataloader = val_cfg = val_evaluator = None
"""
TAUGHT = ("model.update(type='DistillationSegmentor', distillation_weight=0.5, student_distortion="
          "dict(type='StrongDistortion'), teacher=dict(config='{}', checkpoint='{}'))")


def test_killed_and_resumed_equals_undisturbed(tiny_config, trained, tmp_path, monkeypatch):
    path = tiny_config(MIXED, TAUGHT.format(*trained))
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
    assert_same(want['state_dict'], have['state_dict'])
    losses, resumed = (list(content['message_hub']['log_scalars']['train/loss'].data[0])
                       for content in (want, have))
    assert losses == resumed and len(set(losses)) == 6


def test_unlabelled_images_need_a_teacher_and_the_loop_that_keeps_their_share(
        tiny_config, trained, tmp_path):
    with pytest.raises(UserError, match='PartlyLabelledDataset.*EncoderDecoder has no teacher'):
        train(tiny_config(MIXED), work_dir=tmp_path / 'work')
    cfg = load_config(tiny_config(MIXED, TAUGHT.format(*trained)))
    assert check_config(cfg) == ([], [])
    cfg.train_cfg.type = 'IterBasedTrainLoop'
    problem, = check_config(cfg)[0]
    assert 'train_cfg.type is IterBasedTrainLoop' in problem
    cfg = load_config(tiny_config(MIXED))
    cfg.train_dataloader.dataset = cfg.train_dataloader.dataset.dataset
    assert check_config(cfg) == ([], [])
    cfg.train_dataloader.dataset.pipeline[1].keep_unlabelled = True
    problem, = check_config(cfg)[0]
    assert 'LoadAerialAnnotations' in problem and 'no teacher' in problem
