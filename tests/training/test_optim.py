"""Parameter groups: what is latent is decided by the type of the layer. Training in bfloat16."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from bhvit_seg.errors import UserError, find_user_error
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear
from bhvit_seg.training.optim import latent_groups


@pytest.fixture
def model():
    init_default_scope('mmseg')
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), BinaryConv2d(4, 8, 3), nn.BatchNorm2d(8),
        nn.Sequential(BinaryLinear(8, 8), BinaryLinear(8, 8, binary=False)))


def build(model, optimizer=None, **settings):
    return build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='LatentWeightOptimWrapperConstructor',
        optimizer=optimizer or dict(type='AdamW', lr=0.1, weight_decay=0.5), **settings)).optimizer


def ids(parameters):
    return {id(parameter) for parameter in parameters}


def test_latent_weights_have_a_group_and_no_decay(model):
    latent = [model[1].weight, model[3][0].weight]
    optimizer = build(model)
    others, group = optimizer.param_groups
    assert ids(group['params']) == ids(latent)
    assert ids(others['params']) == ids(model.parameters()) - ids(latent)
    assert (group['lr'], group['weight_decay']) == (0.1, 0)
    assert (others['lr'], others['weight_decay']) == (0.1, 0.5)
    assert latent_groups(optimizer, model) == [group]
    with pytest.raises(UserError, match='LatentWeightOptimWrapperConstructor'):
        latent_groups(torch.optim.SGD(model.parameters(), 0.1), model)


def test_factors_and_mmengine_s_settings(model):
    groups = build(model, paramwise_cfg=dict(
        latent_lr_mult=2., latent_decay_mult=0.1, norm_decay_mult=0.)).param_groups
    assert len(groups) == 3 and sum(len(g['params']) for g in groups) == len(
        list(model.parameters()))
    assert (groups[-1]['lr'], groups[-1]['weight_decay']) == (0.2, 0.05)
    norm, = (g for g in groups if ids(g['params']) == ids(model[2].parameters()))
    assert norm['weight_decay'] == 0
    with pytest.raises(Exception) as error:
        build(model, paramwise_cfg=dict(latent_decay_mult=-1.))
    assert 'latent_decay_mult is -1.0' in str(find_user_error(error.value))


def test_bfloat16_rounds_results_alone():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    layer, rows = BinaryLinear(7, 5), torch.randn(4, 7)
    outputs, gradients = [], []
    for kind in ('OptimWrapper', 'BFloat16OptimWrapper'):
        wrapper = build_optim_wrapper(layer, dict(type=kind, optimizer=dict(type='SGD', lr=0.1)))
        with wrapper.optim_context(layer):
            outputs.append(layer(rows))
        wrapper.backward(outputs[-1].float().square().sum())
        gradients.append(layer.weight.grad.clone())
        layer.weight.grad = None
    exact, rounded = outputs
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(rounded, exact.bfloat16(), rtol=2**-7, atol=0)
    assert (rounded != exact).any()
    assert layer.weight.dtype == torch.float32 and gradients[0].abs().min() > 0
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0)
