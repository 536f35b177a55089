"""The regularization hook in mmengine's own runner; see tests/training/test_recipe.py, too."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper
from torch import nn

from bhvit_seg.models.layers import BinaryLinear
from bhvit_seg.training.hooks import WeightRegularizationHook

from . import toy

LEARNING_RATE, WEIGHT = 0.5, 0.1
START = torch.tensor([[0.5, -1.5], [0.25, 3.0]])


class Toy(BaseModel):
    """A binary layer that no other loss reaches, so that each step can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.binary = BinaryLinear(2, 2)
        self.real = nn.Linear(2, 1)
        with torch.no_grad():
            self.binary.weight.copy_(START)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.real(torch.stack(list(inputs)) if isinstance(inputs, list) else inputs)
        return dict(loss_toy=out.square().mean()) if mode == 'loss' else out


def train(work_dir, iterations=10, begin=0.5, **wrapper):
    record = toy.Record()
    toy.train(work_dir, iterations, [WeightRegularizationHook(weight=WEIGHT, begin=begin), record],
              Toy(), dict(optimizer=dict(type='SGD', lr=LEARNING_RATE), **wrapper),
              [torch.ones(2)] * 8)
    record.weights = [weights['binary.weight'] for weights in record.weights]
    return record


def step(weight):
    """The weights after one step of the loss: each moves towards ±1 by lr · weight / 4."""
    gradient = WEIGHT * torch.sign(weight) * torch.sign(weight.abs() - 1) / 4
    return weight - LEARNING_RATE * gradient


@pytest.mark.parametrize('begin, first', [(0.5, 5), (0, 0), (0.95, 10), (1, 10)])
def test_loss_appears_at_its_share_of_training_and_moves_the_weights(tmp_path, begin, first):
    record = train(tmp_path, begin=begin)
    expected = START
    for i, (logged, weight) in enumerate(zip(record.outputs, record.weights)):
        assert ('loss_weight_regularization' in logged) == (i >= first)
        if i >= first:
            value = logged['loss_weight_regularization']
            assert value.item() == pytest.approx(WEIGHT * (expected.abs() - 1).abs().mean().item())
            torch.testing.assert_close(logged['loss'], logged['loss_toy'] + value)
            expected = step(expected)
        torch.testing.assert_close(weight, expected)


def test_accumulated_gradients_are_averaged(tmp_path):
    record = train(tmp_path, begin=0, iterations=4, accumulative_counts=2)
    torch.testing.assert_close(record.weights[1], step(START))
    torch.testing.assert_close(record.weights[3], step(step(START)))


@pytest.mark.parametrize('binary, losses', [
    (True, {'loss_toy', 'loss_weight_regularization'}), (False, {'loss_toy'})])
def test_a_model_without_binary_layers_trains_without_it(binary, losses):
    model = Toy()
    model.binary.binary = binary
    runner = SimpleNamespace(iter=9, max_iters=10, model=model, logger=logging.getLogger())
    WeightRegularizationHook(begin=0.9).before_train_iter(runner, 0)
    assert set(model(torch.ones(1, 2), mode='loss')) == losses


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='AmpOptimWrapper needs a GPU')
def test_mixed_precision_scales_it_like_any_loss():
    model = Toy().cuda()
    wrapper = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), LEARNING_RATE))
    model.register_forward_hook(WeightRegularizationHook(WEIGHT, 0)._add_loss, with_kwargs=True)
    model.train_step(dict(inputs=torch.ones(2, 2).cuda()), wrapper)
    torch.testing.assert_close(model.binary.weight.detach().cpu(), step(START))
