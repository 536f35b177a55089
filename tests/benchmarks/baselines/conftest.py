"""Small trained-like segmentors for the tests of baselines."""

from __future__ import annotations

from typing import Callable

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import bhvit_seg.models  # noqa: F401
from benchmarks.latency.baselines.labels import center_classes

ARCH = dict(depths=(1, 2, 1, 2), channels=(32, 32, 64, 64), mlp_channels=(64, 128, 128, 256),
            num_heads=(1, 1, 2, 2))


@pytest.fixture
def segmentor() -> Callable[..., torch.nn.Module]:
    """A function that builds a segmentor in which every parameter and statistic counts."""

    def build(downsampling='full_precision', head='BinarySegformerHead', classes=5, exchange=True,
              attention='qd', norm='BN', binary=True, in_channels=3, align_corners=False,
              output_norm=True):
        init_default_scope('mmseg')
        torch.manual_seed(0)
        extra = dict(pool_scales=(1, 2, 3)) if head == 'BinaryUPerHead' else {}
        model = MODELS.build(ConfigDict(
            type='EncoderDecoder',
            data_preprocessor=dict(
                type='MultiChannelSegDataPreProcessor', mean=[110., 120., 130., 90.][:in_channels],
                std=[50., 55., 60., 70.][:in_channels], bgr_to_rgb=exchange),
            backbone=dict(type='BHViT', arch=ARCH, downsampling=downsampling, attention=attention,
                          norm_cfg=dict(type=norm), binary=binary, in_channels=in_channels,
                          output_norm=output_norm, pretrain_img_size=64),
            decode_head=dict(
                type=head, in_channels=[32, 32, 64, 64], in_index=[0, 1, 2, 3], channels=32,
                num_classes=classes, norm_cfg=dict(type=norm), align_corners=align_corners,
                binary=binary, **extra),
            train_cfg=dict(), test_cfg=dict(mode='whole')))
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.startswith('data_preprocessor') or not value.is_floating_point():
                continue
            if name.endswith(('running_var', 'alpha', 'slope')):
                value.data.uniform_(0.3, 1.4)
            elif name.endswith('initialized'):
                value.data.fill_(1)
            elif value.dim() < 3 or 'position' in name:
                value.data.add_(torch.empty_like(value).uniform_(-0.3, 0.3))
        model.eval().requires_grad_(False)
        center_classes(model.decode_head.conv_seg,
                       model(torch.randn(1, in_channels, 64, 64), mode='tensor'))
        return model

    return build


@pytest.fixture
def image() -> Callable[..., np.ndarray]:
    """A function that makes a random image ``(H, W, C)``, red first."""
    return lambda *shape: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
