"""Our binary heads: binary throughout but for the classifier, with real-valued shortcuts."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

import bhvit_seg.models  # noqa: F401
from bhvit_seg.errors import UserError
from bhvit_seg.models.conv_module import BinaryConvModule
from bhvit_seg.models.layers import BinaryConv2d
from bhvit_seg.models.quantizers import binarize_weight, sign


def build(kind, **cfg):
    return MODELS.build(dict(
        dict(type=kind, in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=16,
             num_classes=3, dropout_ratio=0), **cfg))


def features(batch=2, side=16):
    return [torch.randn(batch, 8 << i, side >> i, side >> i) for i in range(4)]


@pytest.mark.parametrize('in_channels,out_channels,kernel', [(6, 6, 3), (4, 12, 1), (12, 4, 3)])
def test_module_is_product_norm_shortcut_and_rprelu(in_channels, out_channels, kernel):
    module = BinaryConvModule(in_channels, out_channels, kernel, dict(type='BN')).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, in_channels, 5, 7)
    bits = sign(x + module.conv.input_bias.view(-1, 1, 1))
    product = nn.functional.conv2d(bits, binarize_weight(module.conv.weight), padding=kernel // 2)
    norm = nn.BatchNorm2d(out_channels).eval()
    norm.load_state_dict(module.norm.state_dict())
    if out_channels >= in_channels:
        shortcut = torch.cat([x] * (out_channels // in_channels), 1)
    else:
        shortcut = x.unflatten(1, (out_channels, -1)).mean(2)
    torch.testing.assert_close(module(x), module.act(norm(product) + shortcut))


@pytest.mark.parametrize('kind', ['BinarySegformerHead', 'BinaryUPerHead'])
def test_only_the_classifier_is_real_valued(kind):
    head = build(kind)
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [m for m in convs if not isinstance(m, BinaryConv2d)] == [head.conv_seg]
    modules = [m for m in head.modules() if isinstance(m, BinaryConvModule)]
    assert len(modules) == len(convs) - 1
    out = head(features())
    assert out.shape == (2, 3, 16, 16)
    out.square().mean().backward()
    assert all(m.conv.weight.grad.abs().sum() > 0 and m.act.slope.grad.abs().sum() > 0
               for m in modules)


@pytest.mark.parametrize('kind', ['BinarySegformerHead', 'BinaryUPerHead'])
def test_twin_has_the_same_tensors_and_no_bits(kind):
    binary, twin = build(kind), build(kind, binary=False)
    twin.load_state_dict(binary.state_dict())
    assert not any(m.binary for m in twin.modules() if isinstance(m, BinaryConv2d))
    x = features()
    assert not torch.allclose(binary.eval()(x), twin.eval()(x))


def test_heads_take_odd_maps():
    maps = [torch.randn(1, 8 << i, s, t) for i, (s, t) in enumerate([(23, 9), (12, 5), (6, 3),
                                                                    (3, 2)])]
    for kind in ('BinarySegformerHead', 'BinaryUPerHead'):
        assert build(kind).eval()(maps).shape == (1, 3, 23, 9)


def test_channels_without_a_shortcut_are_named():
    with pytest.raises(UserError, match='from 8 to 12 channels'):
        build('BinarySegformerHead', channels=12)
