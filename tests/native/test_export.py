"""Packed networks against the simulated ones they are from, in float64."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from native.segmentors import (
    MINI,
    WIDE,
    build_segmentor,
    picture,
    randomize,
    segmentor_config,
    simulated_logits,
)

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import ARCHITECTURES
from bhvit_seg.models.data_preprocessor import MultiChannelSegDataPreProcessor
from bhvit_seg.native import PackedSegmentor
from bhvit_seg.native.export import check_exportable, fold_segmentor
from bhvit_seg.native.file_format import read_packed, write_packed
from bhvit_seg.native.unpacking import unpack_segmentor

SIZES = [(64, 64), (37, 50), (100, 68), (4, 4)]


@pytest.fixture
def assert_packed_equals(engine, tmp_path):
    """A function that compares the packed form of a model with its simulation.

    The engine computes in float32. The seeds are such that rounding turns no bit, which would
    change logits by far more than the tolerance.
    """
    def compare(model, size):
        write_packed(tmp_path / 'model.bhv', fold_segmentor(model), {})
        packed = PackedSegmentor(tmp_path / 'model.bhv', threads=2)
        image = picture(size, len(packed.mean))
        expected, logits = simulated_logits(model, image), packed.logits(image)
        assert logits.shape == expected.shape and logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=2e-6 * np.abs(expected).max())
        stored = read_packed(tmp_path / 'model.bhv').tensors
        unpacked = simulated_logits(unpack_segmentor(stored), image)
        np.testing.assert_allclose(unpacked, expected, atol=2e-6 * np.abs(expected).max())
        upsampled = torch.nn.functional.interpolate(
            torch.from_numpy(expected)[None], size, mode='bilinear',
            align_corners=model.align_corners)[0]
        assert (packed.predict(image) != upsampled.argmax(0).numpy()).mean() < 0.002

    return compare


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('head', ['BinarySegformerHead', 'BinaryUPerHead'])
@pytest.mark.parametrize('downsampling', ['full_precision', 'binary'])
def test_folded_network_is_the_simulated_one(downsampling, head, size, assert_packed_equals):
    model = build_segmentor(head=head, backbone=dict(downsampling=downsampling))
    assert_packed_equals(model, size)


@pytest.mark.parametrize('arch, downsampling, head', [
    (WIDE, 'full_precision', 'BinaryUPerHead'), (WIDE, 'binary', 'BinarySegformerHead'),
    (ARCHITECTURES['nano'], 'binary', 'BinarySegformerHead')], ids=['tiny', 'small', 'nano'])
def test_the_widths_of_the_presets(arch, downsampling, head, assert_packed_equals):
    model = build_segmentor(arch, head=head, head_channels=128, classes=150,
                            backbone=dict(downsampling=downsampling))
    assert_packed_equals(model, (100, 68))


@pytest.mark.parametrize('options', [
    dict(in_channels=4),
    dict(in_channels=1),
    dict(in_channels=2, head_channels=32),
    dict(align_corners=True),
    dict(align_corners=True, head='BinaryUPerHead'),
    dict(head='BinaryUPerHead', head_options=dict(pool_scales=(1, 5))),
    dict(backbone=dict(window_size=4)),
    dict(backbone=dict(output_norm=False)),
    dict(backbone=dict(norm_cfg=dict(type='SyncBN', eps=1e-3))),
    dict(backbone=dict(norm_cfg=dict(type='BN', affine=False))),
    dict(backbone=dict(rectify_weights=True)),
    dict(backbone=dict(adaptive='running', downsampling='binary'),
         head_options=dict(adaptive='running')),
    dict(preprocessor=dict(bgr_to_rgb=False)),
    dict(preprocessor=dict(_delete_=True, type='BaseDataPreprocessor')),
    dict(preprocessor=dict(_delete_=True, type='SegDataPreProcessor')),
    dict(preprocessor=dict(_delete_=True, type='SegDataPreProcessor', bgr_to_rgb=True,
                           mean=[100.], std=[50.])),
    dict(auxiliary_head=dict(type='FCNHead', in_channels=128, in_index=2, channels=8,
                             num_classes=5, loss_decode=dict(type='CrossEntropyLoss'))),
], ids=str)
def test_every_option_that_can_be_packed(options, assert_packed_equals):
    preprocessor = options.pop('preprocessor', None)
    config = segmentor_config(**options)
    if preprocessor is not None:
        kept = {} if preprocessor.pop('_delete_', False) else config['data_preprocessor']
        config['data_preprocessor'] = {**kept, **preprocessor}
    model = MODELS.build(config).eval()
    randomize(model)
    assert_packed_equals(model, (45, 70))


def test_exact_zeros_are_plus_one(assert_packed_equals):
    model = build_segmentor()
    block = model.backbone.stages[0][0]
    with torch.no_grad():
        for zero in (*model.backbone.patch_embed.parameters(), block.norm1.running_mean,
                     block.norm1.bias, block.token_mixer.input_bias):
            zero.zero_()
    tensors = fold_segmentor(model)
    assert not tensors['stage0.block0.mixer.in_bias'].any()
    assert_packed_equals(model, (37, 50))


class OtherSegmentor(EncoderDecoder):
    pass


class Halving(MultiChannelSegDataPreProcessor):
    def forward(self, data, training=False):
        outputs = super().forward(data, training)
        return {**outputs, 'inputs': outputs['inputs'] / 2}


def arch(**changes):
    return {**MINI, **changes}


@pytest.mark.parametrize('options, words', [
    (dict(backbone=dict(binary=False)), 'binary=False'),
    (dict(backbone=dict(attention='gsb')), "attention='qd'"),
    (dict(backbone=dict(adaptive='image')), "adaptive='image'"),
    (dict(head_options=dict(adaptive='image')), "adaptive='image'"),
    (dict(backbone=dict(norm_cfg=dict(type='LN'))), 'LayerNorm'),
    (dict(backbone=dict(norm_cfg=dict(type='BN', track_running_stats=False))), 'BatchNorm1d'),
    (dict(head_options=dict(type='FCNHead', in_channels=256, in_index=3)), 'FCNHead'),
    (dict(head_options=dict(in_index=[0, 1, 2], in_channels=[32, 64, 128])), '(0, 1, 2)'),
    (dict(head_options=dict(interpolate_mode='nearest')), "'nearest'"),
    (dict(classes=2, head_options=dict(out_channels=1, threshold=0.3)), 'out_channels=1'),
    (dict(classes=300), '300 classes'),
    (dict(preprocessor=dict(test_cfg=dict(size=(96, 96)))), 'test_cfg'),
    (dict(head_channels=16), '16 channels'),
    (dict(arch=arch(channels=(16, 32, 64, 128), mlp_channels=(32, 64, 128, 256))), '16 channels'),
    (dict(arch=arch(channels=(96, 192, 384, 768), mlp_channels=(96, 192, 384, 768)),
          head_channels=96), '24 in each group'),
    (dict(arch=arch(num_heads=(1, 1, 8, 4))), '16 channels a head'),
    (dict(neck=dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=8, num_outs=4)),
     'neck'),
], ids=str)
def test_what_cannot_be_packed_is_named(options, words):
    model = MODELS.build(segmentor_config(**options)).eval()
    with pytest.raises(UserError) as error:
        fold_segmentor(model)
    assert words in str(error.value) and '\n' not in str(error.value)


def test_subclasses_are_not_taken_for_their_bases():
    model = build_segmentor()
    model.data_preprocessor.__class__ = Halving
    with pytest.raises(UserError, match='Halving does more'):
        fold_segmentor(model)
    model.__class__ = OtherSegmentor
    with pytest.raises(UserError, match='OtherSegmentor'):
        check_exportable(model)


def test_values_that_are_not_finite_are_refused():
    model = build_segmentor()
    with torch.no_grad():
        model.backbone.stages[1][0].mlp.act1.slope[3] = float('nan')
    with pytest.raises(UserError, match=r'stage1\.block0\.mlp\.fc1\.slope.*not finite'):
        fold_segmentor(model)


def shrunken(config):
    """The model of a config with one block a stage, so that building takes no time."""
    model = Config.fromfile(str(config)).model
    arch = ARCHITECTURES[model.backbone.arch]
    model.backbone.arch = dict(arch, depths=(1, 1, 1, 1), mlp_channels=arch['channels'])
    return MODELS.build(model).eval()


# Ablations are other networks.
NOT_PACKED = ('_no-shift_', '_no-msgdc_', '_no-msmha_', '_no-qd_', '-only_', '_bidense_')


def test_our_configs_of_binary_networks_can_be_packed(repository):
    configs = [path for path in sorted((repository / 'configs' / 'bhvit').glob('*_rs-lvf-*.py'))
               if not any(part in path.name for part in NOT_PACKED)]
    twins = [config for config in configs if '_fp32_' in config.name]
    assert len(twins) >= 5 and len(configs) - len(twins) >= 15
    for config in set(configs) - set(twins):
        check_exportable(shrunken(config))
    with pytest.raises(UserError, match='full-precision twin'):
        check_exportable(shrunken(twins[0]))
