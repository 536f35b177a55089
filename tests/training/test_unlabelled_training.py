"""Training with unlabelled images in every batch: killed and resumed, and without a teacher."""

import pytest
from equality import assert_same_training, die_at

from bhvit_seg.errors import UserError
from bhvit_seg.models.segmentors import DistillationSegmentor
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
    loss, batches = DistillationSegmentor.loss, []
    with monkeypatch.context() as patch:
        patch.setattr(DistillationSegmentor, 'loss', lambda self, inputs, samples: (batches.append(
            [sample.gt_sem_seg.data.min().item() for sample in samples]),
            loss(self, inputs, samples))[1])
        train(path, work_dir=tmp_path / 'undisturbed')
    assert all(first < 2 and second == 254 for first, second in batches) and len(batches) == 6
    killed = tmp_path / 'killed'
    die_at(3, DistillationSegmentor, 'loss', lambda: train(path, work_dir=killed))
    train(path, work_dir=killed, resume=True)
    assert_same_training('iter_6.pth', tmp_path / 'undisturbed', killed)


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
