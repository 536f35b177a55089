"""Pre-training through mmpretrain, from its configs to a segmentor that begins from it."""

import json
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

DISTILLED = 'bhvit-small_8xb64-751k_imagenet-224x224.py'
PLAIN = 'bhvit-tiny_no-teacher_8xb64-751k_imagenet-224x224.py'


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
    ('model["head"]["num_classes"] = 4', 'the teacher has 3 classes, the student 4'),
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
