"""Settings that do not fit each other are told before anything is built."""

import re
import sys

import pytest
import torch

from bhvit_seg.errors import UserError
from bhvit_seg.training.config import load_config, parse_options
from bhvit_seg.training.config_check import check_config, require_sound, resumed_differences
from bhvit_seg.training.train import train

OHEM = "model['decode_head'].update(sampler=dict(type='OHEMPixelSampler', min_kept=50{}))"
LOSS = "model['decode_head'].update(loss_decode=dict(type={!r}, {}))"
AUXILIARY = ("model.update(auxiliary_head=[dict(type='FCNHead', num_classes={}, loss_decode=["
             "dict(type='CrossEntropyLoss'), dict(type='LovaszLoss', class_weight={})])])")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


@pytest.mark.parametrize('lines, words', [
    ([LOSS.format('WeightedCrossEntropyLoss', 'class_weight=[1., 2., 3.]')],
     ['model.decode_head.loss_decode.class_weight has 3 values for 2 classes']),
    ([AUXILIARY.format(4, [1.0] * 5)],
     ['model.auxiliary_head.0.loss_decode.1.class_weight has 5 values for 4 classes']),
    (["model['decode_head'].update(num_classes=1)"], ['model.decode_head.num_classes is 1']),
    (["model['decode_head'].update(out_channels=1)"],
     ['softmax over model.decode_head.out_channels=1', 'use_sigmoid=True']),
    ([LOSS.format('CrossEntropyLoss', "loss_name='ce'")], ["loss_name is 'ce'", 'loss_ce']),
    (["model['test_cfg'] = dict(mode='slide', crop_size=(32, 24), stride=(16, 28))"],
     ['stride is (16, 28)', 'crop_size=(32, 24)']),
    (["default_hooks['checkpoint'].update(save_best='mIou')"], ["save_best is 'mIou'", 'mIoU']),
    (["val_evaluator.update(prefix='val')"], ["save_best is 'mIoU'", 'val/mIoU']),
    ([LOSS.format('CrossEntropyLoss', 'loss_weight=0.0'), AUXILIARY.format(2, None)],
     ['model.decode_head.loss_decode.loss_weight is 0']),
    (["model['test_cfg'] = dict(mode='slide', crop_size=(32, 32))"],
     ['model.test_cfg.stride is None']),
    (["model['test_cfg'] = dict(mode='slide', crop_size=32, stride=(8, 8))"],
     ['model.test_cfg.crop_size is 32']),
    (['train_cfg.update(max_iters=0)'], ['train_cfg.max_iters is 0']),
    (["param_scheduler[0].update(end='12')"], ["param_scheduler.0.end is '12'"]),
    (["param_scheduler = [dict(type='OneCycleLR', eta_max=1, total_steps=5, by_epoch=False)]"],
     ['param_scheduler.0.total_steps is 5', 'train_cfg.max_iters=12']),
    *(([f'{part}.update({wrong}=3)'], [f'{path}.{wrong}: ', f' {meant}?'])
      for part, path, wrong, meant in (
        ('train_cfg', 'train_cfg', 'max_itrs', 'max_iters'),
        ('train_dataloader', 'train_dataloader', 'batch_sise', 'batch_size'),
        ('train_pipeline[3]', 'train_dataloader.dataset.pipeline.3', 'probe', 'prob'),
        ("model['backbone']", 'model.backbone', 'num_stage', 'num_stages'),
        ("optim_wrapper['optimizer']", 'optim_wrapper.optimizer', 'wieght_decay', 'weight_decay'),
        ('param_scheduler[0]', 'param_scheduler.0', 'powr', 'power'),
        ("default_hooks['checkpoint']", 'default_hooks.checkpoint', 'intervall', 'interval'),
        ('val_evaluator', 'val_evaluator', 'iou_metric', 'iou_metrics'))),
    (["val_evaluator.update(format_only=True, output_dir='out')"], ["save_best is 'mIoU'"]),
    (["val_evaluator.update(iou_metrics=['mIoU', 'mFScore'])"],
     ["val_evaluator.iou_metrics has 'mFScore'", 'mFscore']),
])
def test_what_cannot_work_is_one_sentence(lines, words, tiny_config):
    with pytest.raises(UserError) as error:
        require_sound(load_config(tiny_config(*lines)), 'train')
    assert '\n' not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize('lines', [
    [], ['val_dataloader = None', 'val_cfg = None', 'val_evaluator = None'],
    [LOSS.format('WeightedCrossEntropyLoss', 'class_weight=[1., 2.]'),
     "model['decode_head'].update(out_channels=1)"],
    [LOSS.format('CrossEntropyLoss', 'use_sigmoid=True, class_weight=[2.]'),
     "model['decode_head'].update(out_channels=1)"],
    [OHEM.format(''), LOSS.format('WeightedCrossEntropyLoss', '')],
    ["model['test_cfg'] = dict(mode='slide', crop_size=(32, 32), stride=(32, 20))"],
    ["val_evaluator.update(iou_metrics='mFscore')"],
    ["model['decode_head'].update(loss_decode=[dict(type='CrossEntropyLoss', loss_weight=0.0), "
     "dict(type='DiceLoss')])"],
    ["default_hooks['checkpoint'].update(save_best=['mIoU', 'mDice'])"],
    ["val_evaluator.update(prefix='p')", "default_hooks['checkpoint'].update(save_best='p/aAcc')"],
    *([f'param_scheduler = [{schedule}]'] for schedule in (
        '', "dict(type='LinearLR', start_factor=0.1, end=5, by_epoch=False)",
        "dict(type='MultiStepLR', milestones=[3, 6], by_epoch=False)",
        "dict(type='CosineAnnealingLR', end=3, convert_to_iter_based=True)")),
])
def test_what_works_passes(lines, tiny_config):
    assert check_config(load_config(tiny_config(*lines))) == ([], [])


def test_examples_of_the_documentation_are_sound(repository, tmp_path):
    text = (repository / 'docs' / 'training.md').read_text()
    example, = (block for block in re.findall('```python\n(.*?)```', text, re.DOTALL)
                if 'num_classes' in block)
    path = tmp_path / 'example.py'
    path.write_text(example.replace("'./", f"'{repository}/configs/bhvit/"))
    cfg = load_config(path)
    assert cfg.model.decode_head.num_classes == len(cfg.train_dataloader.dataset.metainfo.classes)
    assert check_config(cfg) == ([], [])
    options, = re.findall(r'`--cfg-options (train_cfg.max_iters=[^`]*)`', text)
    longer = load_config(repository / 'configs' / 'bhvit' /
                         'bhvit-tiny_segformer_1xb8-20k_rs-lvf-448x448.py',
                         parse_options(options.split()))
    assert longer.train_cfg.max_iters == 40000 and check_config(longer) == ([], [])


@pytest.mark.parametrize('change, words', [
    ({'train_cfg.max_iters': 700}, ['ends at iteration 500', 'max_iters=700', 'the last 200',
                                    'param_scheduler.1.end=700', 'param_scheduler.1.T_max=670']),
    ({'train_cfg.max_iters': 400}, ['ends at iteration 500', 'training stops before']),
    ({'param_scheduler.1.begin': 500}, ['max_iters=500', 'no effect']),
    ({'param_scheduler.1.T_max': 200}, ['ends at iteration 230', 'the last 270']),
    ({'param_scheduler': dict(type='CosineRestartLR', periods=[100, 300], by_epoch=False,
                              restart_weights=[1, 1], eta_min=0)}, ['iteration 400']),
    ({'param_scheduler.1.by_epoch': True}, ['param_scheduler.1.by_epoch=False']),
    ({'param_scheduler': dict(head=[dict(type='PolyLR', end=60, by_epoch=False)])},
     ['param_scheduler.head.0']),
    ({'param_scheduler.0.end': 5000}, ['param_scheduler.0.end of LinearLR is 5000', '=500']),
    ({'param_scheduler': dict(type='MultiStepLR', milestones=[300, 8000], by_epoch=False)},
     ['param_scheduler.milestones of MultiStepLR is [300, 8000]', 'max_iters=500']),
])
def test_schedules_that_end_elsewhere_are_told(change, words, repository):
    path, = (repository / 'configs' / 'demo').glob('*.py')
    cfg = load_config(path, {'train_cfg.max_iters': 500, 'param_scheduler.1.end': 500,
                             'param_scheduler.1.T_max': 470})
    assert check_config(cfg) == ([], [])
    for key, value in change.items():
        cfg.merge_from_dict({key: value} if '.' in key else {})
        if '.' not in key:
            cfg[key] = value
    problems, (warning,) = check_config(cfg)
    assert not problems and all(word in warning for word in words), warning


def test_a_resumed_schedule_that_differs_is_told(trained, tmp_path):
    config, checkpoint = trained
    log = tmp_path / 'longer'
    train(config, work_dir=log, resume=checkpoint, cfg_options={
        'train_cfg.max_iters': 5, 'param_scheduler.0.end': 5, 'optim_wrapper.optimizer.lr': 0.5})
    text = next(log.glob('*/*.log')).read_text()
    for words in ('param_scheduler.0.end is 12 there, 5 here',
                  'optim_wrapper.optimizer.lr is 0.01 there, 0.5 here'):
        assert words in text
    content = torch.load(checkpoint, weights_only=False)
    assert not list(resumed_differences(load_config(config), content))


def test_config_and_data_are_checked_together(tiny_config, sentence, tiny_data, capsys):
    from bhvit_seg.cli import main

    config = tiny_config(LOSS.format('CrossEntropyLoss', 'class_weight=[1., 2., 5.]'),
                         'train_cfg.update(max_iters=30)')
    assert main(['check-dataset', str(config)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert '6 images' in lines[0] and '1 problem' in lines[0]
    assert 'class_weight has 3 values' in lines[1]
    assert 'ends at iteration 12' in lines[2]
    assert any('class_weight=[' in line for line in lines[3:])


@pytest.mark.parametrize('lines', [
    [OHEM.format(''), LOSS.format('WeightedCrossEntropyLoss', 'class_weight=[1., 3.]')],
    [OHEM.format(', thresh=0.7'), "model['decode_head'].update(loss_decode=[dict("
     "type='WeightedCrossEntropyLoss'), dict(type='CLDiceLoss', iterations=2)])"],
    [LOSS.format('WeightedCrossEntropyLoss', ''), "model['decode_head'].update(out_channels=1)"],
], ids=['sampler-by-loss', 'sampler-by-probability', 'one-channel'])
def test_samplers_and_one_channel_train(lines, tiny_config, tmp_path):
    lines += ['train_cfg.update(max_iters=1, val_interval=1)']
    assert train(tiny_config(*lines), work_dir=tmp_path).iter == 1


@pytest.mark.parametrize('line, words', [
    (LOSS.format('CrossEntropyLoss', "reduction='avg'"),
     ['model.decode_head.loss_decode (CrossEntropyLoss)', 'avg']),
    ("model['decode_head'].update(sampler=dict(type='OHEMSampler'))", ['OHEMSampler', 'registry']),
    ("model['decode_head'].update(num_classes=4, out_channels=3)", ['FCNHead', 'out_channels=3']),
    ("visualizer = dict(name='other', vis_backends=[dict(type='WandbVisBackend')])",
     ['pip install wandb']),
    ("param_scheduler = [dict(power=0.9)]", ["'power'"]),
    ("param_scheduler = 'PolyLR'", ['param_scheduler', "'str'"]),
    ('val_evaluator = None', ['val_evaluator']),
    ("optim_wrapper.update(type='AmpOptimWrapper')", ['AmpOptimWrapper', 'gpu']),
    ("val_dataloader.pop('dataset')", ['val_dataloader', 'no dataset']),
    ("model['test_cfg'] = None", ['model (EncoderDecoder)']),
    ("model['decode_head'].update(in_channels=7)",
     ['model.decode_head.convs.0.conv (Conv2d)', '7 channels']),
])
def test_what_a_library_refuses_names_the_part_of_the_config(line, words, tiny_config, tmp_path,
                                                             monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(UserError) as error:
        train(tiny_config(line), work_dir=tmp_path / 'work')
    assert '\n' not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)
