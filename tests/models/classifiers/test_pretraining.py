"""Pre-training through mmpretrain, from its configs to a segmentor that begins from it."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

DISTILLED = 'bhvit-small_8xb64-751k_imagenet-224x224.py'
PLAIN = 'bhvit-tiny_no-teacher_8xb64-751k_imagenet-224x224.py'


@pytest.fixture(scope='session')
def mmpretrain():
    """mmpretrain; tests that ask for it are skipped where it is not installed."""
    if importlib.util.find_spec('mmpretrain') is None:
        pytest.skip('mmpretrain is not installed: pip install "bhvit_seg[pretrain]"')
    import bhvit_seg.compat.mmpretrain  # noqa: F401
    import bhvit_seg.models
    import bhvit_seg.models.classifiers  # noqa: F401

    return importlib.import_module('mmpretrain')


@pytest.fixture(scope='session')
def folders(tmp_path_factory) -> Path:
    """A folder as ImageNet's: six training and three validation images of three classes."""
    root = tmp_path_factory.mktemp('classes')
    rng = np.random.default_rng(0)
    for split, count in (('train', 2), ('val', 1)):
        for number, name in enumerate(('dark', 'middle', 'bright')):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 80, (72, 80, 3)) + 80 * number
                assert cv2.imwrite(str(root / split / name / f'{i}.png'), image.astype(np.uint8))
    return root


@pytest.fixture
def small_config(mmpretrain, repository, tmp_path, folders) -> Callable[..., Path]:
    """A function that writes a child of a config: three classes, a small network, five steps."""
    from mmpretrain.registry import MODELS

    def write(name: str, *lines: str) -> Path:
        base = repository / 'configs' / 'pretrain' / name
        arch = dict(_delete_=True, depths=(1, 1, 1, 1), channels=(32, 32, 64, 64),
                    mlp_channels=(64, 64, 128, 128), num_heads=(1, 1, 2, 2))
        loader = dict(num_workers=0, persistent_workers=False, dataset=dict(
            data_root=str(folders)))
        preprocessor = dict(num_classes=3)
        model = dict(data_preprocessor=preprocessor, backbone=dict(arch=arch),
                     head=dict(num_classes=3, in_channels=64))
        if Config.fromfile(str(base)).model.type == 'DistillationClassifier':
            whole = {key: value for key, value in arch.items() if key != '_delete_'}
            teacher = dict(
                type='ImageClassifier', data_preprocessor=dict(
                    type='ClsDataPreprocessor', num_classes=3, mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375], to_rgb=True),
                backbone=dict(type='mmseg.BHViT', arch=whole, out_indices=(3,), binary=False),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=64))
            init_default_scope('mmpretrain')
            torch.manual_seed(1)
            weights = tmp_path / 'teacher.pth'
            torch.save(MODELS.build(teacher).state_dict(), weights)
            model['teacher'] = dict(config=dict(_delete_=True, **teacher),
                                    checkpoint=str(weights))
        path = tmp_path / 'small.py'
        path.write_text('\n'.join([
            f'_base_ = {str(base)!r}', f'model = {model!r}',
            f'train_dataloader = {dict(loader, batch_size=2)!r}',
            f'val_dataloader = {dict(loader, batch_size=3)!r}',
            f'test_dataloader = {dict(loader, batch_size=3)!r}',
            'val_evaluator = dict(topk=(1,))', 'test_evaluator = dict(topk=(1,))',
            'train_cfg = dict(max_iters=5, val_interval=5)',
            'param_scheduler = [dict(type="CosineAnnealingLR", T_max=5, end=5, by_epoch=False)]',
            'default_hooks = dict(checkpoint=dict(interval=3), logger=dict(interval=1), '
            'weight_regularization=dict(begin=0.6))', *lines]) + '\n')
        return path

    return write


def logged(work_dir) -> list[dict]:
    """What a training logged at each iteration, of a resumed one in order."""
    return [json.loads(line) for path in sorted(work_dir.glob('*/vis_data/scalars.json'))
            for line in path.read_text().splitlines() if 'loss' in json.loads(line)]


def test_every_config_is_the_recipe(mmpretrain, repository):
    paths = sorted((repository / 'configs' / 'pretrain').glob('*.py'))
    assert len(paths) == 5
    for path in paths:
        cfg = Config.fromfile(str(path))
        init_default_scope('mmpretrain')
        model = mmpretrain.registry.MODELS.build(cfg.model)
        assert type(model).__name__ == (
            'ImageClassifier' if 'no-teacher' in path.name else 'DistillationClassifier')
        assert len(model.backbone.stages[2]) == (6 if 'tiny' in path.name else 8)
        assert (model.backbone.downsamplings[0].act is None) == ('binary-ds' not in path.name)
        assert list(model.backbone.output_norms) == ['3']
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 5e-4, 0)
        assert 8 * cfg.train_dataloader.batch_size == 512
        hook = cfg.default_hooks.weight_regularization
        assert (hook.weight, hook.begin) == (0.1, 0.9)
        if 'no-teacher' not in path.name:
            assert model.distillation_weight == 0.8
            teacher = mmpretrain.registry.MODELS.build(model.teacher.config)
            # The size of DeiT-Small with its classifier.
            assert sum(p.numel() for p in teacher.parameters()) == 22_050_664
    init_default_scope('mmseg')


@pytest.mark.parametrize('name', [DISTILLED, PLAIN])
def test_segmentor_begins_from_a_pretrained_backbone(small_config, repository, tool, tmp_path,
                                                     name):
    config, work_dir = small_config(name), tmp_path / 'work'
    tool('tools/train.py')([str(config), '--work-dir', str(work_dir)])
    lines = logged(work_dir)
    assert len(lines) == 5
    assert all(('loss_distillation' in line) == (name == DISTILLED) for line in lines)
    assert ['loss_weight_regularization' in line for line in lines] == [
        False, False, False, True, True]

    init_default_scope('mmseg')
    arch = Config.fromfile(str(config)).model.backbone.arch
    cfg = Config.fromfile(str(
        repository / 'configs/bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'))
    cfg.model.backbone.update(arch=arch, init_cfg=dict(
        type='Pretrained', checkpoint=str(work_dir / 'iter_5.pth')))
    cfg.model.decode_head.update(in_channels=list(arch['channels']), channels=32)
    segmentor = MODELS.build(cfg.model)
    segmentor.init_weights()
    state = torch.load(work_dir / 'iter_5.pth', weights_only=False)['state_dict']
    learned = {key: value for key, value in state.items() if key.startswith('backbone.')}
    own = segmentor.state_dict()
    assert len(learned) > 200 and all(torch.equal(own[key], learned[key]) for key in learned)
    assert not any(key.startswith('teacher') for key in state)


def test_terms_are_those_of_the_formula(small_config, mmpretrain):
    init_default_scope('mmpretrain')
    classifier = mmpretrain.registry.MODELS.build(
        Config.fromfile(str(small_config(DISTILLED))).model).eval()
    classifier.init_weights()
    images, labels = torch.randn(2, 3, 224, 224), torch.tensor([2, 0])
    samples = [mmpretrain.structures.DataSample().set_gt_label(label) for label in labels]
    with torch.no_grad():
        losses = classifier.loss(images, samples)
        logits, taught = classifier(images), classifier.teacher.model(images)
        entropy = F.cross_entropy(logits, labels)
        divergence = F.kl_div(logits.log_softmax(1), taught.softmax(1), reduction='batchmean')
        assert losses['loss_classification'] == pytest.approx(0.2 * entropy.item(), rel=1e-5)
        assert losses['loss_distillation'] == pytest.approx(0.8 * divergence.item(), rel=1e-4)
        classifier.regularization_weight = 0.1
        assert classifier.loss(images, samples)['loss_classification'] == pytest.approx(
            0.1 * entropy.item(), rel=1e-5)


@pytest.mark.parametrize('lines, words', [
    ('model["teacher"]["checkpoint"] = "absent.pth"', 'no checkpoint at absent.pth'),
    ('model["teacher"]["config"]["data_preprocessor"]["to_rgb"] = False', 'normalised'),
    ('model["head"]["num_classes"] = 4', 'logits of the teacher are 3×1×1'),
    ('default_hooks["weight_regularization"]["weight"] = 0.3', 'add up to more than 1')])
def test_mistakes_end_in_a_sentence(small_config, tool, sentence, tmp_path, lines, words):
    config = small_config(DISTILLED, lines)
    assert words in sentence(tool('tools/train.py'), config, '--work-dir', tmp_path / 'work')


def test_absence_names_the_extra(repository, tool, sentence, tmp_path, monkeypatch):
    for name in list(sys.modules):
        if name.startswith(('mmpretrain', 'bhvit_seg.compat.mmpretrain', 'bhvit_seg.models.class')):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    said = sentence(tool('tools/train.py'), repository / 'configs' / 'pretrain' / PLAIN)
    assert 'bhvit_seg[pretrain]' in said
