"""The regularization hook in mmengine's own runner."""

from __future__ import annotations

import copy
import logging
import os
import socket
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import BinaryLinear
from bhvit_seg.training.hooks import WeightRegularizationHook

from . import toy

LEARNING_RATE, WEIGHT = 0.5, 0.1
START = [[0.5, -1.5], [0.25, 3.0]]


class Toy(BaseModel):
    """A binary layer that no other loss reaches, so that each step can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.binary = BinaryLinear(2, 2)
        self.real = nn.Linear(2, 1)
        with torch.no_grad():
            self.binary.weight.copy_(torch.tensor(START))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.real(torch.stack(list(inputs)) if isinstance(inputs, list) else inputs)
        return dict(loss_toy=out.square().mean()) if mode == 'loss' else out


class Record(Hook):
    """Remember what each iteration logged and the latent weights after it."""

    def __init__(self):
        self.outputs, self.weights = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs.append(dict(outputs))
        model = getattr(runner.model, 'module', runner.model)
        self.weights.append(model.binary.weight.detach().clone())


def train(work_dir, iterations=10, begin=0.5, optimizer=None, hooks=(), **settings):
    record = Record()
    hooks = [WeightRegularizationHook(weight=WEIGHT, begin=begin), record, *hooks]
    runner = toy.train(work_dir, iterations, hooks, Toy(), optimizer or dict(
        optimizer=dict(type='SGD', lr=LEARNING_RATE)), [torch.ones(2)] * 8, **settings)
    return runner, record


def step(weight):
    """The weights after one step of the loss: each moves towards ±1 by lr · weight / 4."""
    gradient = WEIGHT * torch.sign(weight) * torch.sign(weight.abs() - 1) / 4
    return weight - LEARNING_RATE * gradient


def test_loss_appears_at_its_share_of_training_and_moves_the_weights(tmp_path):
    _, record = train(tmp_path)
    logged = ['loss_weight_regularization' in o for o in record.outputs]
    assert logged == [False] * 5 + [True] * 5
    expected = torch.tensor(START)
    assert torch.equal(record.weights[4], expected)
    for i in range(5, 10):
        value = record.outputs[i]['loss_weight_regularization'].item()
        assert value == pytest.approx(WEIGHT * (expected.abs() - 1).abs().mean().item())
        total = record.outputs[i]['loss_toy'] + record.outputs[i]['loss_weight_regularization']
        torch.testing.assert_close(record.outputs[i]['loss'], total)
        expected = step(expected)
        torch.testing.assert_close(record.weights[i], expected)


@pytest.mark.parametrize('begin,first', [(0, 0), (0.9, 9), (0.95, None), (1, None)])
def test_begin(tmp_path, begin, first):
    _, record = train(tmp_path, begin=begin)
    active = [i for i, o in enumerate(record.outputs) if 'loss_weight_regularization' in o]
    assert active == ([] if first is None else list(range(first, 10)))


def test_accumulated_gradients_are_averaged(tmp_path):
    optimizer = dict(type='OptimWrapper', accumulative_counts=2,
                     optimizer=dict(type='SGD', lr=LEARNING_RATE))
    _, record = train(tmp_path, begin=0, iterations=4, optimizer=optimizer)
    torch.testing.assert_close(record.weights[1], step(torch.tensor(START)))
    torch.testing.assert_close(record.weights[3], step(step(torch.tensor(START))))


def test_averaged_weights_follow_and_validate_without_the_loss(tmp_path):
    ema = dict(type='EMAHook', momentum=0.5)
    runner, record = train(tmp_path, begin=0, iterations=2, hooks=[ema])
    averaged = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model
    # mmengine's average starts as a copy of the weights after the first step
    torch.testing.assert_close(averaged.module.binary.weight.detach(),
                               (record.weights[0] + record.weights[1]) / 2)
    losses = averaged.module(torch.ones(1, 2), mode='loss')
    assert set(losses) == {'loss_toy'}


def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    _, whole = train(tmp_path / 'whole')
    train(tmp_path / 'cut', iterations=8, begin=5 / 8)
    _, resumed = train(tmp_path / 'cut', resume=True)
    assert len(resumed.outputs) == 2
    assert all('loss_weight_regularization' in o for o in resumed.outputs)
    assert torch.equal(resumed.weights[-1], whole.weights[-1])


@pytest.mark.parametrize('binary, losses', [
    (True, {'loss_toy', 'loss_weight_regularization'}), (False, {'loss_toy'})])
def test_a_model_without_binary_layers_trains_without_it(binary, losses):
    model = Toy()
    model.binary.binary = binary
    runner = SimpleNamespace(iter=9, max_iters=10, model=model, logger=logging.getLogger())
    WeightRegularizationHook(begin=0.9).before_train_iter(runner, 0)
    assert set(model(torch.ones(1, 2), mode='loss')) == losses


@pytest.mark.parametrize('arguments', [dict(weight=-0.1), dict(begin=1.5), dict(begin=-0.1)])
def test_wrong_arguments_are_named(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(UserError, match=f'{name}={value}'):
        WeightRegularizationHook(**arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='AmpOptimWrapper needs a GPU')
def test_mixed_precision_scales_it_like_any_loss(tmp_path):
    model = Toy().cuda()
    wrapper = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), LEARNING_RATE))
    model.register_forward_hook(WeightRegularizationHook(WEIGHT, 0)._add_loss, with_kwargs=True)
    before = copy.deepcopy(model.binary.weight.detach())
    model.train_step(dict(inputs=torch.ones(2, 2).cuda()), wrapper)
    torch.testing.assert_close(model.binary.weight.detach(), step(before))


def distributed_step(rank, port, results):
    """One step of one of two processes, on the CPU."""
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    hook = WeightRegularizationHook(WEIGHT, 0)
    model = MMDistributedDataParallel(Toy(), find_unused_parameters=True)

    class FakeRunner:
        iter, max_iters = 0, 10
        logger = logging.getLogger('test')

    FakeRunner.model = model
    hook.before_train_iter(FakeRunner, 0)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), LEARNING_RATE))
    losses = model.train_step(dict(inputs=torch.full((2, 2), float(rank + 1))), wrapper)
    results[rank] = (sorted(losses), model.module.binary.weight.detach().tolist())
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_distributed_step_equals_a_step_alone(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    # forked: mmsegmentation 1.2 installs a package named `tests`, which would be imported instead
    with mp.get_context('fork').Manager() as manager:
        results = manager.dict()
        mp.start_processes(distributed_step, (port, results), 2, start_method='fork')
        for rank in range(2):
            names, weight = results[rank]
            assert names == ['loss', 'loss_toy', 'loss_weight_regularization']
            torch.testing.assert_close(torch.tensor(weight), step(torch.tensor(START)))
