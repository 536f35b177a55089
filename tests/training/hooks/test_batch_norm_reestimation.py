"""Statistics estimated again, against averages computed layer by layer."""

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader

from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.hooks.batch_norm_reestimation import reestimate
from bhvit_seg.training.loops import SeekableSampler
from bhvit_seg.training.train import train

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


SHORT = ('train_cfg.update(max_iters=4)', 'val_cfg = None', 'val_dataloader = None',
         'val_evaluator = None')
HOOK = ("default_hooks.update(reestimation=dict(type='BatchNormReestimationHook', "
        f'num_batches={BATCHES}))')
AVERAGE = "custom_hooks = [dict(type='EMAHook', momentum=0.5, update_buffers={})]"
# The tiny experiment with binary layers, whose weights are real throughout the training.
STAGES = ("custom_hooks = [dict(type='TrainingStagesHook', weights_begin=1., rest_begin=1.)]\n"
          "model['decode_head'] = dict(type='BinarySegformerHead', in_channels=[8, 4], "
          "in_index=[0, 1], channels=8, num_classes=2, "
          "loss_decode=dict(type='WeightedCrossEntropyLoss'))")


def following(runner):
    """Batches of the training data from the end of training on, augmented."""
    loader = runner.train_dataloader
    sampler = SeekableSampler(loader.dataset)
    sampler.seek(0, runner.seed)
    keys = [key for key, _ in zip(sampler, range((4 + BATCHES) * 2))][8:]
    return DataLoader(loader.dataset, batch_size=2, sampler=keys, collate_fn=loader.collate_fn)


@pytest.mark.parametrize('line', ['', AVERAGE.format(False), AVERAGE.format(True), STAGES],
                         ids=['resumable', 'average', 'average-of-buffers', 'stages'])
def test_last_checkpoint_has_statistics_of_the_batches_that_follow(line, tiny_config, tmp_path):
    without = train(tiny_config(*SHORT, line), work_dir=tmp_path / 'without')
    runner = train(tiny_config(*SHORT, line, HOOK), work_dir=tmp_path / 'with')
    plain, got = (load_checkpoint_safely(tmp_path / name / 'iter_4.pth')['state_dict']
                  for name in ('without', 'with'))
    estimated = {name for name in got if 'running_' in name}
    assert estimated and all(torch.equal(got[name], value) for name, value in plain.items()
                             if name not in estimated and 'tracked' not in name)
    model = without.model
    model.load_state_dict(plain)
    assert reestimate(model, following(runner)) == len(estimated) // 2
    for name in estimated:
        assert torch.equal(model.state_dict()[name], got[name]), name
        assert not torch.equal(got[name], plain[name])
