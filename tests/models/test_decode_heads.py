"""Our binary heads: binary throughout but for the classifier, with real-valued shortcuts."""

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

import bhvit_seg.models  # noqa: F401
from bhvit_seg.errors import UserError
from bhvit_seg.models.decode_heads import BinaryConvModule
from bhvit_seg.models.layers import BinaryConv2d
from bhvit_seg.models.quantizers import binarize_weight, sign


def build(kind, **cfg):
    return MODELS.build(dict(
        dict(type=kind, in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=16,
             num_classes=3, dropout_ratio=0), **cfg))


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
def test_all_but_the_classifier_is_binary_except_in_the_twin(kind):
    head = build(kind)
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [m for m in convs if not isinstance(m, BinaryConv2d)] == [head.conv_seg]
    modules = [m for m in head.modules() if isinstance(m, BinaryConvModule)]
    assert len(modules) == len(convs) - 1
    maps = [torch.randn(2, 8 << i, *size) for i, size in enumerate([(23, 9), (12, 5), (6, 3),
                                                                    (3, 2)])]
    out = head(maps)
    assert out.shape == (2, 3, 23, 9)
    with torch.autocast('cpu', torch.bfloat16):
        assert head(maps).dtype == torch.float32
    out.square().mean().backward()
    assert all(m.conv.weight.grad.abs().sum() > 0 and m.act.slope.grad.abs().sum() > 0
               for m in modules)
    twin = build(kind, binary=False)
    twin.load_state_dict(head.state_dict())
    assert not any(m.binary for m in twin.modules() if isinstance(m, BinaryConv2d))
    assert not torch.allclose(head.eval()(maps), twin.eval()(maps))


def test_channels_without_a_shortcut_are_named():
    with pytest.raises(UserError, match='from 8 to 12 channels'):
        build('BinarySegformerHead', channels=12)


@torch.no_grad()
def test_the_head_sums_the_pyramid_from_the_coarsest_map():
    head = MODELS.build(dict(
        type='TopDownHead', in_channels=[2, 3], in_index=[0, 1], channels=4, num_classes=2,
        norm_cfg=dict(type='BN'), align_corners=False)).eval()
    fine, coarse = torch.randn(1, 2, 5, 6), torch.randn(1, 3, 3, 3)
    total = head.laterals[0](fine) + nn.functional.interpolate(
        head.laterals[1](coarse), (5, 6), mode='bilinear', align_corners=False)
    expected = head.conv_seg(nn.functional.relu(head.fusion.bn(nn.functional.conv2d(
        total, head.fusion.conv.weight, padding=1))))
    torch.testing.assert_close(head((fine, coarse)), expected)
