"""How the baselines are initialised: like BHViT, or from a checkpoint."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS

import bhvit_seg.models  # noqa: F401
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear

BASELINES = [dict(type='BinaryResNet', depths=(1, 1, 1, 1), channels=(32, 32, 32, 32)),
             dict(type='BinaryViT', channels=64, depth=4)]


@pytest.mark.parametrize('cfg', BASELINES, ids=lambda cfg: cfg['type'])
def test_latent_weights_are_drawn_like_those_of_bhvit(cfg):
    model = MODELS.build(dict(cfg))
    model.init_weights()
    weights = [m.weight for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    assert len(weights) >= 8
    for weight in weights:
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert abs(weight.mean().item()) < 0.002


@pytest.mark.parametrize('cfg', BASELINES, ids=lambda cfg: cfg['type'])
def test_checkpoint_of_init_cfg_is_loaded_and_kept(cfg, tmp_path):
    source = MODELS.build(dict(cfg))
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'weights.pth')
    model = MODELS.build(dict(cfg, init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))))
    for _ in range(2):  # a second call, as by a runner that resumes, changes nothing
        model.init_weights()
        for name, tensor in source.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
