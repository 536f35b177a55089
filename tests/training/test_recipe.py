"""The whole recipe at once: its terms, resumed, and by two processes."""

import copy
import json
import os
import shutil
import socket

import pytest
import torch
import torch.multiprocessing as mp
from equality import assert_same
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from bhvit_seg.errors import UserError
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.hooks.training_stages import load_twin
from bhvit_seg.training.hooks.weight_statistics import FILE
from bhvit_seg.training.train import train

# Distillation with feature maps, regularization, stages that begin from the twin, freezing,
# statistics, re-estimation, moving average, validation.
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
optim_wrapper = dict(constructor='LatentWeightOptimWrapperConstructor', optimizer=dict(lr=0.02))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
custom_hooks = [
    dict(type='WeightRegularizationHook', begin=0.5),
    dict(type='TrainingStagesHook', weights_begin=1 / 3, rest_begin=0.75,
         weight_decay=(5e-6, 0.), warm_start={folder!r} + '/twin.pth'),
    dict(type='OscillationFreezingHook', begin=0.3, threshold=(0.1, 0.01), window=2),
    dict(type='WeightStatisticsHook', interval=3, figure_interval=100),
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
    train(recipe, work_dir=folder)
    return folder


def scalars(checkpoint) -> dict[str, list]:
    """All that was logged until a checkpoint, but times."""
    return {name: buffer.data[0].tolist()
            for name, buffer in checkpoint['message_hub']['log_scalars'].items()
            if 'time' not in name}


def assert_same_end(*folders):
    left, right = (load_checkpoint_safely(folder / LAST) for folder in folders)
    parts = set(left) - {'meta', 'message_hub'}  # times and paths
    assert parts == set(right) - {'meta', 'message_hub'}
    assert parts >= {'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers',
                     'weight_statistics', 'oscillation_freezing'}
    for part in parts:
        assert_same(left[part], right[part], part)
    assert len(left['optimizer']['param_groups']) == 2
    assert any('frozen' in state for state in left['oscillation_freezing']['weights'].values())
    assert scalars(left) == scalars(right) and 'val/mIoU' in scalars(left)
    scores = [checkpoint['message_hub']['runtime_info']['best_score']
              for checkpoint in (left, right)]
    assert scores[0] == scores[1]
    records = [(folder / FILE).read_bytes() for folder in folders]
    assert records[0] == records[1]


# Where the weights become binary, while they are regularized, and frozen.
@pytest.mark.parametrize('iteration', [4, 8, 10])
def test_resuming_ends_in_the_same_network(recipe, whole, tmp_path, monkeypatch, iteration):
    shutil.copy(whole / f'iter_{iteration}.pth', tmp_path)
    for best in whole.glob('best_*'):
        shutil.copy(best, tmp_path)
    load, paths = torch.load, []
    monkeypatch.setattr(torch, 'load', lambda path, *args, **kwargs: (
        paths.append(str(path)), load(path, *args, **kwargs))[1])
    train(recipe, work_dir=tmp_path, resume=True)
    assert paths.count(str(tmp_path / f'iter_{iteration}.pth')) == 1
    monkeypatch.undo()
    assert_same_end(tmp_path, whole)


def test_every_term_is_logged(whole):
    terms = {name: values for name, values in scalars(load_checkpoint_safely(whole / LAST)).items()
             if name.startswith('train/') and 'loss' in name}
    total = terms.pop('train/loss')
    assert {name: len(values) for name, values in terms.items()} == {
        'train/decode.loss_ce': 12, 'train/loss_distillation': 12,
        'train/loss_feature_distillation': 12, 'train/loss_weight_regularization': 3}
    # from half-way until the weights are frozen
    terms['train/loss_weight_regularization'] = [
        *[0] * 6, *terms['train/loss_weight_regularization'], *[0] * 3]
    sums = [sum(values) for values in zip(*terms.values())]
    assert total == pytest.approx(sums, rel=1e-5)


def test_training_begins_from_the_twin(recipe, trained):
    init_default_scope('mmseg')
    config = Config.fromfile(str(recipe)).model
    config.feature_loss.teacher_channels = [48, 80]
    config.auxiliary_head = dict(type='FCNHead', in_channels=32, in_index=2, channels=8,
                                 num_convs=1, num_classes=2)
    model = MODELS.build(config)
    before = copy.deepcopy(model.state_dict())
    load_twin(model, recipe.with_name('twin.pth'))
    twin = load_checkpoint_safely(recipe.with_name('twin.pth'))['state_dict']
    own = set(before) - set(twin)
    assert all(torch.equal(value, twin.get(name, before[name]))
               for name, value in model.state_dict().items())
    assert all('quantizer' in name or name.startswith(('feature_loss.adapters', 'auxiliary_head.'))
               for name in own)
    assert len({name.split('.')[0] for name in own}) == 3
    with pytest.raises(UserError, match='no checkpoint at nowhere.pth'):
        load_twin(model, 'nowhere.pth')
    with pytest.raises(UserError, match='iter_4.pth is not of this model'):
        load_twin(model, trained[1])


def train_as(rank: int, port: int, config, work_dir, resume: bool) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    runner = train(config, work_dir=work_dir, launcher='pytorch', resume=resume)
    checkpoint = {}
    for hook in runner.hooks:
        if type(hook).__name__ in ('WeightStatisticsHook', 'OscillationFreezingHook'):
            hook.before_save_checkpoint(runner, checkpoint)
    torch.save([runner.model.module.state_dict(), checkpoint], work_dir / f'rank{rank}.pth')
    torch.distributed.destroy_process_group()


def train_by_two(config, work_dir, resume: bool) -> list:
    """Return the weights and the records of each of two processes."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    mp.start_processes(train_as, (port, config, work_dir, resume), 2, start_method='fork')
    return [torch.load(work_dir / f'rank{rank}.pth', weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_stay_the_same_and_resume(recipe, tmp_path):
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    whole.mkdir(), resumed.mkdir()
    first, second = train_by_two(recipe, whole, False)
    assert_same(first, second)
    record = json.loads((whole / FILE).read_text())
    assert record == first[1]['weight_statistics']['record']
    assert [look['iteration'] for look in record['looks']] == [3, 6, 9, 12]
    shutil.copy(whole / 'iter_8.pth', resumed)
    third, fourth = train_by_two(recipe, resumed, True)
    assert_same(first, third)
    assert_same(third, fourth)
