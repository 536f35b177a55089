"""What all backbones have in common: sizes, chosen maps, checks, initial weights."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS

import bhvit_seg.models  # noqa: F401
from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear

BASELINES = [dict(type='BinaryResNet', depths=(1, 1, 1, 1), channels=(32, 32, 32, 32)),
             dict(type='BinaryViT', channels=64, depth=4)]
ARCH = dict(depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(16, 32, 64, 128),
            num_heads=(1, 1, 2, 4))
BACKBONES = [*BASELINES, dict(type='BHViT', arch=ARCH)]


@pytest.mark.parametrize('cfg', BACKBONES, ids=lambda cfg: cfg['type'])
@pytest.mark.parametrize('height,width', [(4, 4), (5, 9), (17, 40), (64, 32), (100, 97)])
def test_any_size(cfg, height, width):
    model = MODELS.build(dict(cfg, in_channels=5)).eval()
    outputs = model(torch.randn(1, 5, height, width))
    assert [out.shape[2:] for out in outputs] == [
        (-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    assert all(out.isfinite().all() for out in outputs)


@pytest.mark.parametrize('cfg', BACKBONES, ids=lambda cfg: cfg['type'])
def test_chosen_maps_only(cfg):
    model = MODELS.build(dict(cfg, out_indices=(1, 3))).eval()
    assert [out.shape[2] for out in model(torch.randn(1, 3, 64, 64))] == [8, 2]
    assert set(model.output_norms) == {'1', '3'}
    with pytest.raises(UserError, match=r'out_indices=\(0, 4\)'):
        MODELS.build(dict(cfg, out_indices=(0, 4)))
    with pytest.raises(UserError, match='4 channels .* in_channels=3'):
        model(torch.randn(1, 4, 32, 32))


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
