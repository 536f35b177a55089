"""The student, its teacher, and the share of each term; against a plain segmentor."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from training.hooks.toy import group_of_one

from bhvit_seg.errors import UserError, find_user_error
from bhvit_seg.models.losses import PixelDistillationLoss
from bhvit_seg.models.segmentors import DistillationSegmentor
from bhvit_seg.training.hooks import TrainingStagesHook, WeightRegularizationHook

ARCH = dict(depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(16, 32, 64, 128),
            num_heads=(1, 1, 2, 4))
SIZE = (32, 64)
PREPROCESSOR = dict(type='SegDataPreProcessor', mean=[120.] * 3, std=[60.] * 3, bgr_to_rgb=True,
                    size=SIZE)


def plain(binary=True, classes=3, **kwargs):
    return ConfigDict(
        type='EncoderDecoder', data_preprocessor=PREPROCESSOR,
        backbone=dict(type='BHViT', arch=ARCH, binary=binary, drop_path_rate=0.),
        decode_head=dict(
            type='BinarySegformerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3],
            channels=16, dropout_ratio=0., num_classes=classes, binary=binary,
            loss_decode=dict(type='WeightedCrossEntropyLoss')),
        train_cfg=dict(), test_cfg=dict(mode='whole'), **kwargs)


def saved_teacher(folder, config=None):
    """A teacher with random weights, which evaluates with random statistics too."""
    config = config or plain(binary=False)
    torch.manual_seed(7)
    model = MODELS.build(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
    path = folder / 'teacher.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return dict(config=config, checkpoint=str(path))


@pytest.fixture
def teacher(tmp_path):
    return saved_teacher(tmp_path)


def distilled(teacher, **kwargs):
    torch.manual_seed(0)
    return MODELS.build({**plain(), 'type': 'DistillationSegmentor', 'teacher': teacher, **kwargs})


@pytest.fixture
def batch():
    labels = torch.randint(0, 3, (2, 1, *SIZE))
    labels[0, :, :20] = 255
    samples = [SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE),
                             gt_sem_seg=PixelData(data=label)) for label in labels]
    return torch.randn(2, 3, *SIZE), samples


def test_terms_are_those_of_the_paper(teacher, batch):
    inputs, samples = batch
    student = distilled(teacher).train()
    alone, twin = MODELS.build(plain()).train(), MODELS.build(teacher['config']).eval()
    alone.load_state_dict(student.state_dict())
    twin.load_state_dict(torch.load(teacher['checkpoint'])['state_dict'])
    losses = student(inputs, samples, mode='loss')
    state = copy.deepcopy(alone.state_dict())
    expected = alone(inputs, samples, mode='loss')
    assert set(losses) == {*expected, 'loss_distillation'}
    torch.testing.assert_close(losses['decode.loss_ce'], 0.2 * expected['decode.loss_ce'])
    assert torch.equal(losses['decode.acc_seg'], expected['decode.acc_seg'])
    alone.load_state_dict(state)
    with torch.no_grad():
        mine, theirs = (torch.nn.functional.interpolate(
            model(inputs, mode='tensor'), SIZE, mode='bilinear') for model in (alone, twin))
    label = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    torch.testing.assert_close(losses['loss_distillation'],
                               0.8 * PixelDistillationLoss()(mine, theirs, label))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = student(inputs, samples, mode='loss')['loss_distillation']
    assert value.dtype == torch.float32 and value.isfinite()


def test_regularization_takes_its_share_from_the_labels(teacher, batch):
    student = distilled(teacher).train()
    before = student(*batch, mode='loss')
    runner = SimpleNamespace(model=student, iter=9, max_iters=10, hooks=[],
                             logger=SimpleNamespace(info=lambda text: None))
    hook = WeightRegularizationHook(weight=0.1, begin=0.9)
    hook.before_train(runner)
    hook.before_train_iter(runner, 9)
    losses = student(*batch, mode='loss')
    torch.testing.assert_close(losses['decode.loss_ce'], 0.5 * before['decode.loss_ce'])
    assert 0.05 < losses['loss_weight_regularization'].item() <= 0.1
    hook.after_train(runner)
    losses = student(*batch, mode='loss')
    assert 'loss_weight_regularization' not in losses and student.regularization_weight == 0


def test_feature_maps_and_auxiliary_heads(teacher, batch):
    auxiliary = dict(type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1,
                     num_classes=3, dropout_ratio=0., loss_decode=[
                         dict(type='WeightedCrossEntropyLoss', loss_name='loss_aux')])
    student = distilled(
        teacher, auxiliary_head=auxiliary, feature_loss=dict(
            type='FeatureDistillationLoss', in_index=[2, 3], student_channels=[32, 64],
            teacher_channels=[32, 64])).train()
    losses = student(*batch, mode='loss')
    assert set(losses) == {'decode.loss_ce', 'decode.acc_seg', 'aux.loss_aux', 'aux.acc_seg',
                           'loss_distillation', 'loss_feature_distillation'}
    # random directions are about at right angles: a squared distance of 2 each
    assert 0.8 < losses['loss_feature_distillation'].item() < 2.4
    student.distillation_weight = 0.
    whole = student(*batch, mode='loss')
    assert whole['loss_distillation'] == whole['loss_feature_distillation'] == 0
    assert losses['aux.loss_aux'].item() == pytest.approx(0.2 * whole['aux.loss_aux'].item(),
                                                          rel=1e-4)


def test_unlabelled_pixels_count_in_the_terms_of_the_teacher_alone(teacher, batch):
    inputs, samples = batch
    student = distilled(teacher).train()
    state = copy.deepcopy(student.state_dict())

    def losses(first, second):
        student.load_state_dict(state)
        for sample, value in zip(samples, (first, second)):
            sample.gt_sem_seg.data[:, :, 40:] = value
        return student(inputs, samples, mode='loss')

    ignored, open_ground, labelled = losses(255, 255), losses(254, 255), losses(1, 255)
    for name in ('decode.loss_ce', 'decode.acc_seg'):
        assert torch.equal(open_ground[name], ignored[name])
        assert not torch.equal(open_ground[name], labelled[name])
    assert torch.equal(open_ground['loss_distillation'], labelled['loss_distillation'])
    assert not torch.equal(open_ground['loss_distillation'], ignored['loss_distillation'])
    losses(254, 255)
    assert (samples[0].gt_sem_seg.data[..., 40:] == 254).all()


def test_images_without_labels_are_distorted_for_the_student_alone(teacher, batch):
    inputs, samples = batch
    samples[0].gt_sem_seg.data[:] = 254
    student = distilled(teacher, student_distortion=dict(type='StrongDistortion')).train()
    seen = {}
    student.backbone.register_forward_pre_hook(lambda _, given: seen.update(student=given[0]))
    student.load_teacher()
    student.teacher.model.backbone.register_forward_pre_hook(
        lambda _, given: seen.update(teacher=given[0]))
    assert student(inputs, samples, mode='loss')['loss_distillation'].isfinite()
    assert torch.equal(seen['teacher'], inputs)
    assert torch.equal(seen['student'][1], inputs[1])
    assert not torch.isclose(seen['student'][0], inputs[0]).any(0).all()


def test_teacher_is_no_part_of_the_student(teacher, batch):
    student, alone = distilled(teacher), MODELS.build(plain())
    student.init_weights()
    segmentor = student.teacher.model
    assert copy.deepcopy(student).teacher is student.teacher
    assert list(student.state_dict()) == list(alone.state_dict())
    assert [n for n, _ in student.named_parameters()] == [n for n, _ in alone.named_parameters()]
    assert segmentor not in list(student.modules())
    assert not any(p.requires_grad for p in segmentor.parameters())

    before = copy.deepcopy(segmentor.state_dict())
    optimizer = OptimWrapper(torch.optim.AdamW(student.parameters(), 1e-2, weight_decay=0.1))
    inputs, samples = batch
    losses = student.train()(inputs, samples, mode='loss')
    optimizer.update_params(student.parse_losses(losses)[0])
    assert not any(module.training for module in segmentor.modules())
    for name, value in segmentor.state_dict().items():
        assert torch.equal(value, before[name]), name
    student.to('meta')
    assert {p.device.type for p in segmentor.parameters()} == {'meta'}


def test_a_wrapped_student_trains(teacher, batch, tmp_path):
    with group_of_one(tmp_path):
        student = distilled(teacher)
        wrapped = MMDistributedDataParallel(student)
        student.init_weights()
        optimizer = OptimWrapper(torch.optim.SGD(wrapped.parameters(), 0.1))
        samples = batch[1]
        images = [torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8) for _ in samples]
        for _ in range(2):
            logged = wrapped.train_step(dict(inputs=images, data_samples=samples), optimizer)
        assert logged['loss_distillation'].isfinite()
        total = logged['decode.loss_ce'] + logged['loss_distillation']
        torch.testing.assert_close(logged['loss'], total)


def test_only_training_needs_the_teacher(batch):
    inputs, samples = batch
    student = distilled(dict(config='nowhere.py', checkpoint='nowhere.pth')).eval()
    assert student(inputs, mode='tensor').shape[1] == 3
    assert student(inputs, samples, mode='predict')[0].pred_sem_seg.shape == SIZE


@pytest.mark.parametrize('changed, message', [
    (dict(checkpoint='nowhere.pth'), 'no checkpoint at nowhere.pth'),
    (dict(config='nowhere.py'), 'no config of a teacher at nowhere.py'),
    (dict(config=plain(classes=4)), 'teacher.pth is not of this model .*of another shape'),
    (dict(config={**plain(binary=False), 'data_preprocessor': dict(
        PREPROCESSOR, bgr_to_rgb=False)}), 'normalised otherwise: .* bgr_to_rgb'),
    (dict(config={**plain(binary=False), 'data_preprocessor': dict(
        PREPROCESSOR, type='MultiChannelSegDataPreProcessor', mean=[1.] * 4, std=[1.] * 4)}),
     'normalised otherwise'),
])
def test_teachers_that_do_not_fit_are_named_before_training(teacher, changed, message):
    student = distilled({**teacher, **changed})
    with pytest.raises(UserError, match=message) as error:
        student.init_weights()
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('arguments, message', [
    (dict(distillation_weight=1.2), r'distillation_weight is 1\.2'),
    (dict(teacher=dict(config='a.py')), 'teacher has config: give its config and its checkpoint'),
    (dict(teacher=dict(config='a.py', checkpoint=None)), 'checkpoint is None'),
    (dict(teacher=None), 'teacher has None'),
    (dict(teacher=dict(config=dict(a=1), checkpoint='a.pth')), 'with its type'),
])
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(Exception) as error:
        distilled(**{'teacher': {}, **arguments})
    assert re.search(message, str(find_user_error(error.value)))


def test_weights_that_leave_nothing_for_the_labels_are_refused(teacher):
    student, said = distilled(teacher, distillation_weight=0.95), []
    runner = SimpleNamespace(model=student, hooks=[], max_iters=10,
                             logger=SimpleNamespace(warning=said.append))
    with pytest.raises(UserError, match=r'\(0\.95\).*\(0\.1\) add up to more than 1'):
        WeightRegularizationHook(weight=0.1).before_train(runner)
    WeightRegularizationHook(weight=0.05).before_train(runner)
    # Where weights are frozen before they would be regularized, β is never used.
    assert not said
    runner.hooks = [TrainingStagesHook(0.4, 0.9)]
    WeightRegularizationHook(weight=0.1, begin=0.9).before_train(runner)


def test_classes_of_the_teacher_are_those_of_the_training_set(tmp_path, teacher):
    names = ('water', 'road', 'land')
    content = torch.load(teacher['checkpoint'])
    content['meta'] = {'dataset_meta': {'classes': names}}
    torch.save(content, teacher['checkpoint'])
    student = distilled(teacher)
    student.check_classes(['Water', 'road', 'land'])
    with pytest.raises(UserError, match='on the classes water, road, land, the training set has '
                                        'land, road, water: '):
        student.check_classes(names[::-1])
    content['meta'] = {}
    torch.save(content, teacher['checkpoint'])
    distilled(teacher).check_classes(names[::-1])


def test_any_segmentor_of_mmseg_teaches(tmp_path, batch):
    """Other stride, cascade of heads, auxiliary head, synchronised norms."""
    norm = dict(type='SyncBN')
    head = dict(type='FCNHead', in_channels=8, channels=8, num_convs=1, num_classes=3,
                norm_cfg=norm, in_index=-1)
    unet = dict(type='UNet', base_channels=8, num_stages=2, strides=(1, 1), enc_num_convs=(1, 1),
                dec_num_convs=(1,), downsamples=(True,), enc_dilations=(1, 1),
                dec_dilations=(1,), norm_cfg=norm)
    config = dict(
        type='CascadeEncoderDecoder', num_stages=2, data_preprocessor=PREPROCESSOR, backbone=unet,
        decode_head=[head, dict(type='OCRHead', in_channels=8, in_index=-1, channels=8,
                                ocr_channels=8, num_classes=3, norm_cfg=norm)],
        auxiliary_head=head, train_cfg=dict(), test_cfg=dict(mode='whole'))
    student = distilled(saved_teacher(tmp_path, config), feature_loss=dict(
        type='FeatureDistillationLoss', in_index=[0], student_channels=[8],
        teacher_channels=[16])).train()
    assert isinstance(student, DistillationSegmentor)
    student.feature_loss = None
    losses = student(*batch, mode='loss')
    assert losses['loss_distillation'].isfinite()
