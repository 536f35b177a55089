"""The stages in mmengine's runner: what is binary, what moves, and what a resumed run does."""

from __future__ import annotations

import copy
import os
import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import BinaryLinear
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.hooks import (
    OscillationFreezingHook,
    TrainingStagesHook,
    WeightRegularizationHook,
)
from bhvit_seg.training.hooks.training_stages import load_twin
from bhvit_seg.training.train import train as train_config

ITERATIONS = 10


class Toy(BaseModel):
    """A binary and a real layer; notes what it was like when it was called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.binary, self.real = BinaryLinear(4, 4), nn.Linear(4, 1)
        self.calls = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.calls.append((mode, self.binary.binarize_weights))
        inputs = torch.stack(list(inputs)) if isinstance(inputs, list) else inputs
        out = self.real(self.binary(inputs))
        return dict(loss_toy=(out - 3).square().mean()) if mode == 'loss' else [out]


class Record(Hook):
    """Remember parameters, moments and settings after each iteration."""

    def __init__(self):
        self.after = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        optimizer = runner.optim_wrapper.optimizer
        self.after.append(dict(
            weights=copy.deepcopy(runner.model.state_dict()),
            steps=[int(state.get('step', 0)) for state in optimizer.state.values()],
            decay=[group['weight_decay'] for group in optimizer.param_groups]))


class Nothing(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {}


CONSTRUCTOR = dict(constructor='LatentWeightOptimWrapperConstructor')


def train(work_dir, hook, optimizer=None, val_interval=1000, hooks=(), **wrapper):
    record, model = Record(), Toy()
    inputs = [dict(inputs=torch.randn(4)) for _ in range(8)]
    validation = dict(
        val_dataloader=DataLoader(inputs, batch_size=8), val_cfg=dict(type='ValLoop'),
        val_evaluator=Evaluator(Nothing())) if val_interval < 1000 else {}
    runner = Runner(
        model, work_dir=str(work_dir),
        train_dataloader=DataLoader(inputs, batch_size=2, sampler=InfiniteSampler(
            inputs, shuffle=False)),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=ITERATIONS,
                       val_interval=val_interval),
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=optimizer or dict(
                type='AdamW', lr=0.1, weight_decay=0.2), **wrapper),
        custom_hooks=[hook, record, *hooks], default_scope='mmseg',
        default_hooks=dict(logger=None, checkpoint=None),
        experiment_name=f'{work_dir.name}{os.getpid()}{id(record)}', **validation)
    runner.train()
    return model, record


@pytest.mark.parametrize('begins, first_binary', [
    ((0.4, 0.9), 4), ((0., 1.), 0), ((0.35, 0.5), 4), ((1., 1.), 10)])
def test_weights_become_binary_at_their_share(tmp_path, begins, first_binary):
    model, _ = train(tmp_path, TrainingStagesHook(*begins))
    assert model.calls == [('loss', i >= first_binary) for i in range(ITERATIONS)]
    assert model.binary.binarize_weights


@pytest.mark.parametrize('optimizer', [
    dict(type='AdamW', lr=0.1, weight_decay=0.2),
    dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.2, nesterov=True)])
def test_latent_weights_rest_in_the_end(tmp_path, optimizer):
    _, record = train(tmp_path, TrainingStagesHook(0.2, 0.6), optimizer)
    latent = [after['weights']['binary.weight'] for after in record.after]
    real = [after['weights']['real.weight'] for after in record.after]
    for i in range(1, ITERATIONS):
        assert torch.equal(latent[i], latent[i - 1]) == (i >= 6), i
        assert not torch.equal(real[i], real[i - 1]), i


class AtClipping(Hook):
    """Remember whether latent weights have a gradient when gradients are clipped."""

    def __init__(self):
        self.latent = []

    def before_train(self, runner):
        clip = runner.optim_wrapper._clip_grad

        def look_and_clip():
            self.latent.append(bool(runner.model.binary.weight.grad.any()))
            clip()

        runner.optim_wrapper._clip_grad = look_and_clip


def test_weights_at_rest_do_not_take_part_in_clipping(tmp_path):
    look = AtClipping()
    train(tmp_path, TrainingStagesHook(0., 0.5), hooks=[look], clip_grad=dict(max_norm=0.1))
    assert look.latent == [True] * 5 + [False] * 5


def test_weights_rest_in_a_wrapped_model(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0,
                                         world_size=1)
    try:
        wrapped = MMDistributedDataParallel(Toy())
        optimizer = OptimWrapper(torch.optim.AdamW(wrapped.parameters(), 0.1, weight_decay=0.2))
        runner = SimpleNamespace(model=wrapped, optim_wrapper=optimizer, iter=0, max_iters=4,
                                 hooks=[],
                                 logger=SimpleNamespace(info=lambda text: None))
        hook, latent, real = TrainingStagesHook(0., 0.5), [], []
        for runner.iter in range(4):
            hook.before_train_iter(runner, runner.iter)
            wrapped.train_step(dict(inputs=torch.randn(2, 4)), optimizer)
            latent.append(wrapped.module.binary.weight.detach().clone())
            real.append(wrapped.module.real.weight.detach().clone())
        assert [torch.equal(a, b) for a, b in zip(latent, latent[1:])] == [False, True, True]
        assert not any(torch.equal(a, b) for a, b in zip(real, real[1:]))
    finally:
        torch.distributed.destroy_process_group()


def test_the_optimizer_begins_anew_with_binary_weights(tmp_path):
    _, record = train(tmp_path, TrainingStagesHook(0.4, 0.8))
    steps = [set(after['steps']) for after in record.after]
    assert steps[:8] == [{1}, {2}, {3}, {4}, {1}, {2}, {3}, {4}]
    assert steps[9] == {4, 6}  # latent weights and the others


def test_the_optimizer_begins_anew_with_binary_weights_that_rest_at_once(tmp_path):
    model, record = train(tmp_path, TrainingStagesHook(0.4, 0.4))
    assert [set(after['steps']) for after in record.after][3:6] == [{4}, {1}, {2}]
    assert not model.binary.weights_at_rest


# The window is full while the weights rest.
@pytest.mark.parametrize('window', [4, 5, 7])
def test_nothing_freezes_once_weights_rest(tmp_path, window):
    class Nudge(Hook):
        priority = 'VERY_HIGH'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if not runner.model.binary.weights_at_rest:
                with torch.no_grad():
                    runner.model.binary.weight[0] *= -1

    _, record = train(tmp_path, TrainingStagesHook(0., 0.5), hooks=[
        Nudge(), OscillationFreezingHook(threshold=(0., 0.), begin=0., window=window)])
    latent = [after['weights']['binary.weight'] for after in record.after]
    assert all(torch.equal(latent[i], latent[5]) for i in range(5, ITERATIONS))
    assert not torch.equal(latent[3], latent[4])


def test_labels_get_their_share_back_once_weights_rest(tmp_path):
    class Share(Hook):
        def __init__(self):
            self.seen = []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.seen.append('loss_weight_regularization' in outputs)

    share = Share()
    train(tmp_path, TrainingStagesHook(0., 0.7),
          hooks=[WeightRegularizationHook(begin=0.3), share])
    assert share.seen == [False] * 3 + [True] * 4 + [False] * 3


def test_validation_sees_binary_weights(tmp_path):
    model, _ = train(tmp_path, TrainingStagesHook(0.4, 0.9), val_interval=3)
    binary = [flag for mode, flag in model.calls if mode == 'predict']
    assert len(binary) == 4 and all(binary)
    assert [flag for mode, flag in model.calls if mode == 'loss'] == [False] * 4 + [True] * 6


def test_decay_of_latent_weights_depends_on_the_stage(tmp_path):
    _, record = train(tmp_path, TrainingStagesHook(0.4, 0.8, weight_decay=(0.01, 0.)),
                      **CONSTRUCTOR)
    assert [after['decay'] for after in record.after] == [[0.2, 0.01]] * 4 + [[0.2, 0.]] * 6


@pytest.mark.parametrize('arguments, message', [
    (dict(weights_begin=0.9, rest_begin=0.4), 'weights_begin=0.9, rest_begin=0.4'),
    (dict(rest_begin=1.1), 'rest_begin=1.1'),
    (dict(weight_decay=[0.1]), r'weight_decay=\[0.1\]'),
    (dict(weight_decay=[0.1, -1.]), 'not negative'),
])
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        TrainingStagesHook(**arguments)


def test_decay_needs_groups_and_stages_need_binary_layers(tmp_path):
    with pytest.raises(UserError, match='LatentWeightOptimWrapperConstructor'):
        train(tmp_path, TrainingStagesHook(weight_decay=(0.01, 0.)))
    with pytest.raises(UserError, match='Linear has no binary layer'):
        TrainingStagesHook().before_train(SimpleNamespace(model=nn.Linear(2, 2)))


# The whole recipe: distillation with feature maps, regularization, stages that begin from the twin,
# freezing, statistics, re-estimation, moving average, validation.
TWIN = """
_base_ = {base!r}
model = dict(
    backbone=dict(
        _delete_=True, type='BHViT', drop_path_rate=0.3, binary=False, arch=dict(
            depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(16, 32, 64, 128),
            num_heads=(1, 1, 2, 4))),
    decode_head=dict(
        _delete_=True, type='BinarySegformerHead', in_channels=[8, 16, 32, 64],
        in_index=[0, 1, 2, 3], binary=False, channels=16, num_classes=2,
        loss_decode=dict(type='WeightedCrossEntropyLoss')))
"""
RECIPE = """
_base_ = './twin.py'
model = dict(
    type='DistillationSegmentor',
    teacher=dict(config={folder!r} + '/twin.py', checkpoint={folder!r} + '/twin.pth'),
    feature_loss=dict(type='FeatureDistillationLoss', in_index=[2, 3],
                      student_channels=[32, 64], teacher_channels=[32, 64]),
    backbone=dict(binary=True),
    decode_head=dict(binary=True))
train_cfg = dict(max_iters=12)
optim_wrapper = dict(constructor='LatentWeightOptimWrapperConstructor')
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
custom_hooks = [
    dict(type='WeightRegularizationHook', begin=0.5),
    dict(type='TrainingStagesHook', weights_begin=1 / 3, rest_begin=0.75,
         weight_decay=(5e-6, 0.), warm_start={folder!r} + '/twin.pth'),
    dict(type='OscillationFreezingHook', begin=0.4, threshold=(0.1, 0.01), window=2),
    dict(type='WeightStatisticsHook', interval=2),
    dict(type='BatchNormReestimationHook', num_batches=2),
    dict(type='EMAHook', momentum=0.1)]
log_level = 'ERROR'
"""
LAST = 'iter_12.pth'


@pytest.fixture(scope='module')
def recipe(trained, tmp_path_factory):
    """The recipe's config, beside config and checkpoint of a twin with random weights."""
    folder = tmp_path_factory.mktemp('recipe')
    (folder / 'twin.py').write_text(TWIN.format(base=str(trained[0])))
    (folder / 'recipe.py').write_text(RECIPE.format(folder=str(folder)))
    torch.manual_seed(3)
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(str(folder / 'twin.py')).model)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / 'twin.pth')
    return folder / 'recipe.py'


@pytest.fixture(scope='module')
def whole(recipe, tmp_path_factory):
    """The folder of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp('whole')
    train_config(recipe, work_dir=folder)
    return folder


def assert_same(left, right, path=''):
    """Compare nested containers exactly."""
    assert type(left) is type(right), path
    if isinstance(left, dict):
        assert list(left) == list(right), path
        for key in left:
            assert_same(left[key], right[key], f'{path}.{key}')
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for number, (a, b) in enumerate(zip(left, right)):
            assert_same(a, b, f'{path}.{number}')
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    else:
        assert left == right, path


def assert_same_end(*folders):
    left, right = (load_checkpoint_safely(folder / LAST) for folder in folders)
    parts = set(left) - {'meta', 'message_hub'}  # times and paths
    assert parts == set(right) - {'meta', 'message_hub'}
    assert parts > {'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'}
    for part in parts:
        assert_same(left[part], right[part], part)
    assert len(left['optimizer']['param_groups']) == 2
    scores = [checkpoint['message_hub']['runtime_info']['best_score']
              for checkpoint in (left, right)]
    assert scores[0] == scores[1]


# Where the weights become binary, while they are regularized, and at rest.
@pytest.mark.parametrize('iteration', [4, 8, 10])
def test_resuming_ends_in_the_same_network(recipe, whole, tmp_path, iteration):
    shutil.copy(whole / f'iter_{iteration}.pth', tmp_path)
    for best in whole.glob('best_*'):
        shutil.copy(best, tmp_path)
    train_config(recipe, work_dir=tmp_path, resume=True)
    assert_same_end(tmp_path, whole)


def test_a_killed_training_equals_an_undisturbed_one(recipe, whole, tmp_path, start_tool):
    process = start_tool('tools/train.py', recipe, '--work-dir', tmp_path)
    while process.poll() is None and not (tmp_path / 'iter_2.pth').exists():
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=60)
    assert (tmp_path / 'iter_2.pth').exists() and not (tmp_path / LAST).exists()
    train_config(recipe, work_dir=tmp_path, resume=True)
    assert_same_end(tmp_path, whole)


def test_every_term_is_logged(whole):
    logged = load_checkpoint_safely(whole / LAST)['message_hub']['log_scalars']
    terms = {name: list(buffer.data[0]) for name, buffer in logged.items()
             if name.startswith('train/') and 'loss' in name}
    total = terms.pop('train/loss')
    assert {name: len(values) for name, values in terms.items()} == {
        'train/decode.loss_ce': 12, 'train/loss_distillation': 12,
        'train/loss_feature_distillation': 12, 'train/loss_weight_regularization': 3}
    # from half-way until the weights rest
    terms['train/loss_weight_regularization'] = [
        *[0] * 6, *terms['train/loss_weight_regularization'], *[0] * 3]
    sums = [sum(values) for values in zip(*terms.values())]
    assert total == pytest.approx(sums, rel=1e-5)


def test_checkpoints_hold_the_student_alone_and_rest_in_the_end(whole):
    checkpoints = [load_checkpoint_safely(whole / f'iter_{n}.pth') for n in (8, 10, 12)]
    assert not [name for name in checkpoints[0]['state_dict']
                if not name.startswith(('backbone.', 'decode_head.'))]
    # mmengine keeps the average in the place of the weights and these in that of the average
    weights = [checkpoint['ema_state_dict']['module.decode_head.fusion_conv.conv.weight']
               for checkpoint in checkpoints]
    assert not torch.equal(weights[0], weights[1]) and torch.equal(weights[1], weights[2])
    averages = [checkpoint['state_dict']['decode_head.fusion_conv.conv.weight']
                for checkpoint in checkpoints]
    assert not torch.equal(averages[0], averages[1]) and torch.equal(averages[1], averages[2])
    assert torch.equal(averages[2], weights[2])


def test_training_begins_from_the_twin(recipe):
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(str(recipe)).model)
    load_twin(model, recipe.with_name('twin.pth'))
    expected = load_checkpoint_safely(recipe.with_name('twin.pth'))['state_dict']
    state = model.state_dict()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name
    assert all('quantizer' in name for name in set(state) - set(expected))
    assert set(state) > set(expected)


def test_parts_of_training_alone_keep_their_start(recipe):
    init_default_scope('mmseg')
    config = Config.fromfile(str(recipe)).model
    config.feature_loss.teacher_channels = [48, 80]
    config.auxiliary_head = dict(type='FCNHead', in_channels=32, in_index=2, channels=8,
                                 num_convs=1, num_classes=2)
    model = MODELS.build(config)
    before = copy.deepcopy(model.state_dict())
    load_twin(model, recipe.with_name('twin.pth'))
    own = [name for name in before if name.startswith(('feature_loss.', 'auxiliary_head.'))]
    assert len([name for name in own if 'adapters' in name]) == 4 and len(own) > 8
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in own)


def test_a_checkpoint_that_is_not_the_twin_s_is_named(recipe, trained):
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(str(recipe)).model)
    with pytest.raises(UserError, match='no checkpoint at nowhere.pth'):
        load_twin(model, 'nowhere.pth')
    with pytest.raises(UserError, match='iter_4.pth is not of this model'):
        load_twin(model, trained[1])


@pytest.mark.parametrize('option, message', [
    ('model.teacher.checkpoint=nowhere.pth', 'no checkpoint at nowhere.pth'),
    ('model.distillation_weight=0.95', 'add up to more than 1')])
def test_the_tool_says_what_is_wrong(recipe, tmp_path, tool, sentence, option, message):
    assert message in sentence(tool('tools/train.py'), recipe, '--work-dir', tmp_path,
                               '--cfg-options', option)
