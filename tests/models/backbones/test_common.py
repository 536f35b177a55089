"""What all backbones have in common: sizes, chosen maps, checks, initial weights."""

import pytest
import torch
from mmseg.registry import MODELS

import benchmarks.baselines  # noqa: F401
import bhvit_seg.models  # noqa: F401
from bhvit_seg.errors import UserError

BASELINES = [dict(type='BinaryResNet', depths=(1, 1, 1, 1), channels=(32, 32, 32, 32)),
             dict(type='BinaryViT', channels=64, depth=4)]
ARCH = dict(depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(16, 32, 64, 128),
            num_heads=(1, 1, 2, 4))
BHVIT = dict(type='BHViT', arch=ARCH)
BACKBONES = [*BASELINES, BHVIT, dict(BHVIT, window_size=8)]


@pytest.mark.parametrize('cfg', BACKBONES, ids=lambda cfg: cfg['type'])
@pytest.mark.parametrize('height,width', [(4, 4), (5, 9), (17, 40), (64, 32), (100, 97)])
def test_any_size(cfg, height, width):
    outputs = MODELS.build(dict(cfg, in_channels=5)).eval()(torch.randn(1, 5, height, width))
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
def test_checkpoint_of_init_cfg_is_loaded_and_kept(cfg, tmp_path):
    source = MODELS.build(dict(cfg))
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'weights.pth')
    model = MODELS.build(dict(cfg, init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))))
    for _ in range(2):  # a second call, as by a runner that resumes, changes nothing
        model.init_weights()
        for name, tensor in source.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize('cfg,words', [
    (dict(type='BHViT', arch='huge'), ['arch', "'huge'", "'tiny'", "'small'"]),
    (dict(type='BHViT', arch=dict(ARCH, num_heads=(1, 1, 3, 4))), ['stage 3', 'num_heads=3']),
    (dict(type='BHViT', arch=dict(ARCH, channels=(8, 16, 40, 80), mlp_channels=(16, 32, 80, 80))),
     ['stage 3', '40', '16']),
    (dict(type='BHViT', token_mixers='pooling'), ['token_mixers', "'pooling'", "'hybrid'"]),
    (dict(type='BHViT', shifts='none'), ['shifts', "'none'", 'False']),
    (dict(type='BHViT', attention='sign'), ['attention', "'sign'", "'boolean'"]),
    (dict(type='BinaryResNet', recipe='xnor'), ['recipe', "'xnor'", "'bireal'"]),
    (dict(type='BinaryResNet', norm_cfg=dict(type='LN')), ['norm_cfg', "'LN'", "'BN'"]),
    (dict(type='BinaryResNet', depths=(2, 2, 2)), ['depths=(2, 2, 2)', 'four']),
    (dict(type='BinaryViT', channels=16, num_heads=3), ['channels=16', 'num_heads=3']),
    (dict(type='EfficientNetLite', arch='lite9'), ['lite9']),
    (dict(type='EfficientNetLite', img_mean=[1, 2, 3]), ['img_mean']),
])
def test_wrong_arguments_are_named(cfg, words):
    with pytest.raises(UserError) as caught:
        MODELS.build(cfg)
    assert all(word in str(caught.value) for word in words)


def test_an_image_smaller_than_a_patch_is_named():
    with pytest.raises(UserError, match='3×40 pixels .* 4×4 patch'):
        MODELS.build(dict(type='BHViT', arch=ARCH))(torch.randn(1, 3, 3, 40))
