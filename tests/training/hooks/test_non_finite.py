from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.training.hooks.non_finite import NonFiniteLossHook
from bhvit_seg.training.train import train


class Model(nn.Module):
    """Two layers and losses whose factor can be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.factor, self.overflow = 1.0, 1.0

    def forward(self, inputs, mode='tensor'):
        value = self.second(self.first(inputs) * self.overflow).mean()
        return {'loss_ce': value * self.factor, 'loss_aux': [value, value],
                'acc_seg': value * float('nan')}


@pytest.fixture
def model():
    model = Model()
    hook = NonFiniteLossHook()
    hook.before_train(SimpleNamespace(model=model, iter=41))
    return model


def test_finite_losses_and_other_modes_pass(model):
    model(torch.ones(1, 2), mode='loss')
    model.factor = float('nan')
    model(torch.ones(1, 2), mode='tensor')


def spoil_loss(model):
    model.factor = float('inf')


def spoil_layer(model):
    model.overflow = float('inf')


def spoil_parameter(model):
    with torch.no_grad():
        model.second.weight[0, 0] = float('nan')


@pytest.mark.parametrize('spoil, value, words', [
    (spoil_loss, 1, r'iteration 42 \(loss_ce = -?inf.*loss itself'),
    (spoil_parameter, 1, r'left such values in second\.weight'),
    (spoil_layer, 1, r'second \(Linear\)'),
    (lambda model: None, float('nan'), 'input images')])
def test_what_is_not_finite_first_is_named(model, spoil, value, words):
    spoil(model)
    with pytest.raises(UserError, match=words):
        model(torch.full((1, 2), float(value)), mode='loss')


def test_training_stops_before_the_weights_are_spoilt(tiny_config, tmp_path):
    config = tiny_config(
        "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e30))",
        'param_scheduler = []')
    with pytest.raises(UserError, match=r'not finite at iteration \d+ .*lower learning rate'):
        train(config, work_dir=tmp_path)
