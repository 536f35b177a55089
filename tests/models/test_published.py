"""Published checkpoints: names, adaptation to a backbone, and what does not fit."""

import argparse

import pytest
import torch
from mmseg.registry import MODELS
from plain_bhvit import published_manifest

import bhvit_seg.models  # noqa: F401
from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import convert_checkpoint
from bhvit_seg.models.weights import load_checkpoint_safely

ARCH = dict(depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(16, 32, 64, 128),
            num_heads=(1, 1, 2, 4))


def build(**cfg):
    return MODELS.build(dict(dict(type='BHViT', arch=ARCH), **cfg))


def published(norm='BN', attention='qd', full_precision_downsampling=True):
    manifest = published_manifest(*ARCH.values(), norm, attention, full_precision_downsampling)
    state = {name: torch.randn(shape) for name, shape in manifest.items()}
    return dict(state, **{'classifier.weight': torch.randn(10, 64), 'classifier.bias':
                          torch.randn(10)})


@pytest.mark.parametrize('output_norm,norm,attention,downsampling', [
    (False, 'BN', 'qd', 'full_precision'), (True, 'LN', 'qd', 'binary'),
    (True, 'BN', 'gsb', 'binary'), (False, 'LN', 'gsb', 'full_precision')])
def test_every_option_loads_strictly(output_norm, norm, attention, downsampling):
    state = published(norm, attention, downsampling == 'full_precision')
    model = build(norm_cfg=dict(type=norm), attention=attention, downsampling=downsampling,
                  output_norm=output_norm)
    converted = convert_checkpoint({f'module.{n}': t for n, t in state.items()})
    assert converted.keys() == convert_checkpoint(state).keys()
    # No tensor is lost or invented.
    assert sum(t.numel() for t in converted.values()) == sum(
        t.numel() for n, t in state.items() if not n.startswith('classifier'))
    model.load_state_dict(converted, strict=True)
    assert torch.equal(model.stages[2][0].mlp.fc1.weight,
                       state['vit.encoder.layerB.0.intermediate.dense.weight'])
    if output_norm:
        assert torch.equal(model.output_norms['3'].weight, state['vit.layernorm.weight'])


@pytest.mark.parametrize('channels', [2, 3, 6])
def test_stem_is_inflated(channels):
    """A grey image, repeated into every channel, gives what it gives the RGB stem."""
    state = convert_checkpoint(published())
    model, rgb = build(in_channels=channels), build()
    model.load_state_dict(dict(state))
    rgb.load_state_dict(dict(state))
    grey = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(
        model.patch_embed.projection(grey.expand(-1, channels, -1, -1)),
        rgb.patch_embed.projection(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    if channels > 3:
        torch.testing.assert_close(model.patch_embed.projection.weight[:, :3],
                                   rgb.patch_embed.projection.weight * 3 / channels)


def test_position_embeddings_are_resized():
    model = build(pretrain_img_size=448)
    state = convert_checkpoint(published())
    state['patch_embed.position.weight'] = torch.full((1, 8, 56, 56), 0.5)
    model.load_state_dict(state)
    assert model.patch_embed.position.weight.shape == (1, 8, 112, 112)
    torch.testing.assert_close(model.patch_embed.position.weight.mean(), torch.tensor(0.5))


def test_foreign_checkpoints_are_refused():
    with pytest.raises(UserError, match="not a published BHViT[^$]*'layer1.conv.weight'"):
        convert_checkpoint({'layer1.conv.weight': torch.zeros(1)})
    with pytest.raises(UserError, match="no published BHViT has, such as 'encoder.layerA.0.extra'"):
        convert_checkpoint(dict(published(), **{'vit.encoder.layerA.0.extra': torch.zeros(1)}))


def pretrained(path, **cfg):
    model = build(init_cfg=dict(type='Pretrained', checkpoint=str(path)), **cfg)
    model.init_weights()
    return model


def test_init_cfg_takes_backbones_segmentors_and_published_files(tmp_path):
    state = published()
    converted = convert_checkpoint(state)
    segmentor = {f'backbone.{n}': t for n, t in converted.items()}
    segmentor['decode_head.x'] = torch.zeros(1)
    for content in (dict(state_dict=converted), dict(state_dict=segmentor), dict(model=state)):
        torch.save(content, tmp_path / 'x.pth')
        model = pretrained(tmp_path / 'x.pth', in_channels=4)
        assert torch.equal(model.stages[0][0].mlp.fc1.weight,
                           converted['stages.0.0.mlp.fc1.weight'])
        assert model.patch_embed.projection.in_channels == 4


@pytest.mark.parametrize('cfg,words', [
    (dict(downsampling='binary'), ['downsamplings.0.input_bias']),
    (dict(arch='tiny'), ['stages.0.1.norm1.weight', 'of another shape']),
    (dict(norm_cfg=dict(type='LN')), ['running_mean']),
    (dict(attention='gsb'), ['quantizer.c1', 'quantizer.alpha']),
])
def test_init_cfg_says_what_does_not_fit(tmp_path, cfg, words):
    torch.save(dict(state_dict=convert_checkpoint(published())), tmp_path / 'x.pth')
    with pytest.raises(UserError) as caught:
        pretrained(tmp_path / 'x.pth', **cfg)
    assert all(word in str(caught.value) for word in [*words, 'x.pth'])


def test_converter_tool(tmp_path, tool, sentence, capsys):
    main = tool('tools/model_converters/bhvit2mmseg.py')
    source, target = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    torch.save(dict(model=published(), args=argparse.Namespace(lr=5e-4)), source)
    main([str(source), str(target)])
    assert "depths [1, 1, 1, 1] and downsampling='full_precision'" in capsys.readouterr().out
    build().load_state_dict(load_checkpoint_safely(target)['state_dict'])
    (tmp_path / 'broken.pth').write_bytes(b'not a checkpoint')
    (tmp_path / 'packed.bhv').write_bytes(b'BHVITSEG')
    for name in ('missing.pth', 'broken.pth', 'packed.bhv is a packed model'):
        assert name in sentence(main, tmp_path / name.split()[0], tmp_path / 'other.pth')
    assert not (tmp_path / 'other.pth').exists()
