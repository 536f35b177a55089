"""Registered layers: alone, and inside mmseg's own heads by config."""

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from bhvit_seg.models.layers import (
    BinaryConv2d,
    BinaryLinear,
    build_token_norm,
)


def signs(x):
    return torch.where(x >= 0, 1., -1.)


@pytest.mark.parametrize('layer,plain,shape', [
    (BinaryConv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 5)),
    (BinaryLinear(4, 6), nn.Linear(4, 6, bias=False), (7, 4))])
def test_binary_activations_can_meet_real_weights(layer, plain, shape):
    layer.binarize_weights = False
    plain.load_state_dict({n: t for n, t in layer.state_dict().items() if n != 'input_bias'})
    x = torch.randn(*shape)
    torch.testing.assert_close(layer(x), plain(signs(x)))


def test_other_padding_modes_and_norms_are_refused():
    with pytest.raises(ValueError, match="padding_mode='reflect'"):
        BinaryConv2d(2, 2, 3, padding=1, padding_mode='reflect')
    with pytest.raises(ValueError, match="'GN'.*'BN', 'LN', 'SyncBN'"):
        build_token_norm(dict(type='GN'), 8)




@pytest.mark.parametrize('cfg', [
    dict(type='FCNHead', num_convs=2), dict(type='ASPPHead', dilations=(1, 2)),
    dict(type='PSPHead', pool_scales=(1, 2)),
    dict(type='UPerHead', in_channels=[8, 16], in_index=[0, 1], pool_scales=(1, 2)),
    dict(type='FPNHead', in_channels=[8, 16], in_index=[0, 1], feature_strides=[4, 8]),
], ids=lambda c: c['type'])
def test_conv_cfg_binarizes_heads_of_mmseg(cfg):
    """All convolutions but the classifier become binary, and all of them learn."""
    head = MODELS.build(dict(
        dict(in_channels=16, in_index=1, channels=12, num_classes=3, dropout_ratio=0,
             conv_cfg=dict(type='BinaryConv2d'), norm_cfg=dict(type='BN'),
             act_cfg=dict(type='RPReLU', num_parameters=12)), **cfg))
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [m for m in convs if not isinstance(m, BinaryConv2d)] == [head.conv_seg]
    assert len(convs) > 1
    features = [torch.randn(2, 8, 16, 16), torch.randn(2, 16, 8, 8)]
    head(features).square().mean().backward()
    assert all(conv.weight.grad.abs().sum() > 0 for conv in convs)
