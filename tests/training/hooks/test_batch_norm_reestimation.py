"""Statistics estimated again, against averages computed layer by layer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import binary_layers
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.hooks import BatchNormReestimationHook
from bhvit_seg.training.hooks.batch_norm_reestimation import reestimate
from bhvit_seg.training.loops import SeededDataset, SeekableSampler
from bhvit_seg.training.train import train

from .toy import Toy

BATCHES = 3


class Net(BaseModel):
    """Two norms behind each other, one that keeps its statistics, one that is not reached."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.BatchNorm1d(4, momentum=0.3)
        self.linear = nn.Linear(4, 6)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.BatchNorm1d(6)
        self.kept, self.auxiliary = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        for layer in (self.first, self.second, self.kept, self.auxiliary):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.weight)

    def train(self, mode=True):
        super().train(mode)
        self.kept.eval()
        return self

    def forward(self, inputs, data_samples=None, mode='tensor'):
        assert mode == 'tensor'
        return self.kept(self.second(self.dropout(self.linear(self.first(inputs)))))


def batches(count=BATCHES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [dict(inputs=torch.randn(8, 4, generator=generator) * 3 + i) for i in range(count)]


def expected(net, inputs):
    """Mean and variance of each norm's inputs, averaged over batches, in double precision."""
    found = {'first': [], 'second': []}
    linear, weight, bias = (value.detach().double() for value in (
        net.linear.weight, net.first.weight, net.first.bias))
    for batch in inputs:
        x = batch['inputs'].double()
        found['first'].append((x.mean(0), x.var(0)))
        x = (x - x.mean(0)) / (x.var(0, unbiased=False) + net.first.eps).sqrt() * weight + bias
        x = x @ linear.T + net.linear.bias.detach().double()
        found['second'].append((x.mean(0), x.var(0)))
    return {name: [torch.stack(part).mean(0).float() for part in zip(*values)]
            for name, values in found.items()}


def assert_statistics(net, inputs):
    for name, (mean, var) in expected(net, inputs).items():
        torch.testing.assert_close(getattr(net, name).running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(getattr(net, name).running_var, var, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('mode', [True, False])
def test_statistics_are_averages_through_the_network_as_it_is(mode):
    net = Net().train(mode)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert reestimate(net, batches()) == 2
    assert_statistics(net, batches())
    changed = {name for name, value in net.state_dict().items()
               if not torch.equal(value, before[name])}
    assert changed == {f'{layer}.{buffer}' for layer in ('first', 'second') for buffer in (
        'running_mean', 'running_var', 'num_batches_tracked')}
    assert net.first.momentum == 0.3 and net.second.momentum == 0.1
    assert net.training is net.first.training is net.dropout.training is mode
    assert not net.kept.training


def estimate_share(rank, folder):
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank,
                                         world_size=2)
    net = Net().train()
    reestimate(net, batches(4)[rank::2])
    torch.save(net.state_dict(), folder / f'{rank}.pth')
    torch.distributed.destroy_process_group()


def test_processes_share_the_batches(tmp_path):
    mp.start_processes(estimate_share, (tmp_path,), 2, start_method='fork')
    net = Net()
    for rank in range(2):
        net.load_state_dict(torch.load(tmp_path / f'{rank}.pth'))
        assert_statistics(net, batches(4))


HOOK = ("default_hooks.update(reestimation=dict(type='BatchNormReestimationHook', "
        f'num_batches={BATCHES}))')
# The tiny experiment with binary layers.
BINARY = ("model['decode_head'] = dict(type='BinarySegformerHead', in_channels=[8, 4], "
          "in_index=[0, 1], channels=8, num_classes=2, "
          "loss_decode=dict(type='WeightedCrossEntropyLoss'))",)
SHORT = ('train_cfg.update(max_iters=4)', 'val_cfg = None', 'val_dataloader = None',
         'val_evaluator = None')


def statistics_of(state):
    return {name: value for name, value in state.items() if 'running_' in name}


def following(runner):
    """Batches of the training data from the end of training on, augmented."""
    loader = runner.train_dataloader
    dataset = loader.dataset if isinstance(loader.dataset, SeededDataset) else SeededDataset(
        loader.dataset)
    sampler = SeekableSampler(dataset)
    sampler.seek(0, runner.seed)
    keys = [key for key, _ in zip(sampler, range((4 + BATCHES) * 2))][8:]
    return DataLoader(dataset, batch_size=2, sampler=keys, collate_fn=loader.collate_fn)


@pytest.mark.parametrize('lines', [(), ("train_cfg.update(type='IterBasedTrainLoop')",)],
                         ids=['resumable', 'stock'])
def test_last_checkpoint_has_statistics_of_the_batches_that_follow(lines, tiny_config, tmp_path):
    without = train(tiny_config(*SHORT, *lines), work_dir=tmp_path / 'without')
    train(tiny_config(*SHORT, HOOK, *lines), work_dir=tmp_path / 'with')
    plain, got = (load_checkpoint_safely(tmp_path / name / 'iter_4.pth')['state_dict']
                  for name in ('without', 'with'))
    estimated = statistics_of(got)
    assert estimated
    for name, value in plain.items():
        assert torch.equal(got[name], value) or name in estimated or 'tracked' in name
    if not lines:
        before = load_checkpoint_safely(tmp_path / 'with' / 'iter_2.pth')['state_dict']
        other = load_checkpoint_safely(tmp_path / 'without' / 'iter_2.pth')['state_dict']
        assert all(torch.equal(before[name], other[name]) for name in other)
        model = without.model
        assert reestimate(model, following(without)) == len(estimated) // 2
        for name, value in statistics_of(model.state_dict()).items():
            assert torch.equal(value, estimated[name]) and not torch.equal(value, plain[name])


@pytest.mark.parametrize('buffers', [False, True])
def test_averaged_weights_get_their_own_statistics(buffers, tiny_config, tmp_path):
    average = (f"custom_hooks = [dict(type='EMAHook', momentum=0.5, update_buffers={buffers})]")
    runner = train(tiny_config(*SHORT, HOOK, average), work_dir=tmp_path)
    state = load_checkpoint_safely(tmp_path / 'iter_4.pth')['state_dict']
    model = runner.model
    model.load_state_dict(state)
    for value in statistics_of(model.state_dict()).values():
        value.zero_()
    reestimate(model, following(runner))
    for name, value in statistics_of(model.state_dict()).items():
        assert torch.equal(value, state[name]), name


def test_statistics_are_those_of_binary_weights_in_any_stage(tiny_config, tmp_path):
    stages = ("custom_hooks = [dict(type='TrainingStagesHook', weights_begin=1., "
              "rest_begin=1.)]")
    runner = train(tiny_config(*SHORT, HOOK, stages, *BINARY), work_dir=tmp_path)
    state = load_checkpoint_safely(tmp_path / 'iter_4.pth')['state_dict']
    model = runner.model
    model.load_state_dict(state)
    assert all(layer.binarize_weights for layer in binary_layers(model).values())
    reestimate(model, following(runner))
    for name, value in statistics_of(model.state_dict()).items():
        assert torch.equal(value, state[name]), name


def test_a_network_without_norms_is_left_alone():
    assert reestimate(Toy(), [dict(inputs=torch.ones(2, 6))]) == 0


@pytest.mark.parametrize('value', [0, 1.5])
def test_wrong_number_is_named(value):
    with pytest.raises(UserError, match=f'num_batches of BatchNormReestimationHook is {value}'):
        BatchNormReestimationHook(num_batches=value)


def test_batches_of_no_fixed_size_are_refused_before_training():
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(batch_size=None))
    with pytest.raises(UserError, match='batch_sampler'):
        BatchNormReestimationHook().before_train(runner)
