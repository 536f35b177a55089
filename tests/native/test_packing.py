"""The export of a trained model into one file, and what is printed about it."""

import hashlib

import numpy as np
import pytest
import torch
from native.segmentors import build_segmentor, write_experiment
from PIL import Image

from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.errors import UserError
from bhvit_seg.native import PackedSegmentor, verify
from bhvit_seg.native import packing as module
from bhvit_seg.native.file_format import read_packed
from bhvit_seg.native.packing import export_packed, pack_model, synthetic_images


@pytest.fixture(autouse=True)
def small_scenes(monkeypatch, engine):
    """Verify with scenes of the training window, which is small here."""
    monkeypatch.setattr(module, 'SCENE_SIZE', (16, 48))


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp('experiment'))


@pytest.fixture
def main(tool):
    return tool('tools/export_packed.py')


def test_tool_verifies_and_says_what_takes_how_many_bytes(experiment, tmp_path, main, capsys):
    main([*map(str, experiment), str(tmp_path / 'model.bhv')])
    lines = capsys.readouterr().out.splitlines()
    sizes = {line[:28].strip(): int(line[28:].split()[0].replace(',', ''))
             for line in lines if line.split(' bytes')[0][-1:].isdigit()}
    total = sizes.pop('total')
    assert total == (tmp_path / 'model.bhv').stat().st_size == sum(sizes.values())
    assert sizes['binary weights'] > 50_000 and sizes['full-precision downsampling'] > 300_000
    assert {'stem', 'position embeddings', 'channel parameters', 'classifier'} < set(sizes)
    text = '\n'.join(lines)
    assert 'verified on 4 images, 12,288 pixels' in text and 'times smaller than' in text
    assert lines[-1] == f'wrote {tmp_path / "model.bhv"}'


def test_file_says_what_the_model_is(experiment, tmp_path):
    export_packed(*experiment, tmp_path / 'model.bhv', verify=False)
    meta = read_packed(tmp_path / 'model.bhv').meta
    assert meta['name'] == 'random' and meta['classes'] == [f'class {i}' for i in range(5)]
    assert np.asarray(meta['palette']).shape == (5, 3)
    assert meta['window'] == [64, 48] and meta['channels'] == 3
    assert meta['channel_order'] == ['red', 'green', 'blue'] and meta['color_type'] == 'color'
    assert meta['test_scale'] is None and meta['lidar'] is None and not meta['align_corners']
    assert meta['created_by'].startswith('bhvit_seg ')
    assert meta['source'] == hashlib.sha256(experiment[1].read_bytes()).hexdigest()
    assert meta['precision'] == {} and meta['verification'] is None


def test_classes_and_colours_of_a_config_of_ours(repository, tmp_path):
    from mmseg.registry import MODELS

    from bhvit_seg.training.config import load_config

    base = repository / 'configs/bhvit/bhvit-tiny_segformer_1xb8-20k_rs-lvf-camera-lidar-448x448.py'
    config = tmp_path / 'mine.py'
    config.write_text(
        f'_base_ = {str(base)!r}\nmodel = dict(backbone=dict(arch=dict(_delete_=True, '
        'depths=(1, 1, 1, 1), channels=(64, 128, 256, 512), mlp_channels=(64, 128, 256, 512), '
        'num_heads=(1, 1, 4, 8))))\n')
    model = MODELS.build(load_config(config).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')
    report = export_packed(config, tmp_path / 'weights.pth', tmp_path / 'mine.bhv', verify=False)
    meta = read_packed(tmp_path / 'mine.bhv').meta
    assert meta['classes'] == ['background', 'road'] and meta['window'] == [448, 448]
    assert meta['channel_order'] == ['red', 'green', 'blue', 'lidar 0']
    assert meta['lidar'] == {'channels': None, 'fill': 0.0, 'nodata': None}
    warning, = report.warnings
    assert '2 attention quantizers' in warning and 'warning: 2 attention' in report.summary()


def test_what_prediction_leaves_out_is_said(tmp_path):
    config, checkpoint = write_experiment(tmp_path, [dict(type='Resize', scale_factor=2.),
                                                     dict(type='CLAHE')])
    options = {'model.test_cfg.mode': 'slide', 'model.test_cfg.crop_size': [64, 64],
               'model.test_cfg.stride': [32, 32]}
    report = export_packed(config, checkpoint, tmp_path / 'x.bhv', cfg_options=options)
    windows, resize, clahe = report.warnings
    assert 'sliding windows' in windows and 'Resize' in resize and 'CLAHE' in clahe
    assert report.verification.passed
    text = config.read_text().replace("'LoadAerialImage'",
                                      "'LoadImageFromFile', 'color_type': 'grayscale'")
    config.write_text(text)
    report = export_packed(config, checkpoint, tmp_path / 'x.bhv', verify=False)
    assert "color_type='grayscale'" in report.warnings[0]
    assert read_packed(tmp_path / 'x.bhv').meta['color_type'] == 'color'


def test_16_bits_are_forced_and_their_harm_is_counted(experiment, tmp_path):
    wide = export_packed(*experiment, tmp_path / 'wide.bhv', precision='32')
    report = export_packed(*experiment, tmp_path / 'narrow.bhv', precision='16')
    stored = read_packed(tmp_path / 'narrow.bhv')
    assert set(stored.meta['precision']) == set(report.narrowed) == {
        name for name, array in stored.tensors.items() if array.dtype == np.float16}
    assert len(report.narrowed) == 9 and report.total < 0.7 * wide.total
    images = synthetic_images(3, (64, 48))
    expected = verify.count_changes(*(
        [PackedSegmentor(tmp_path / name).predict(image) for image in images]
        for name in ('wide.bhv', 'narrow.bhv')))
    assert report.changed == expected > 0
    assert f'16 bits changed {expected} labels' in report.summary()


def test_wrong_model_is_not_written(experiment, tmp_path, monkeypatch, main, sentence):
    monkeypatch.setattr(module, 'packed_labels',
                        lambda tensors, images, threads: [np.zeros(i.shape[:2]) for i in images])
    text = sentence(main, *experiment, tmp_path / 'x.bhv')
    assert 'was not written' in text and not list(tmp_path.iterdir())


def test_values_beyond_16_bits_cannot_be_forced(tmp_path):
    model = build_segmentor()
    with torch.no_grad():
        model.decode_head.conv_seg.weight.mul_(1e7)
    with pytest.raises(UserError, match=r'head\.classifier\.weight .* 16 bits'):
        pack_model(model, tmp_path / 'x.bhv', precision='16')
    with pytest.raises(UserError, match="precision is '8'"):
        pack_model(model, tmp_path / 'x.bhv', precision='8')
    assert not list(tmp_path.iterdir())


def test_inputs_are_not_overwritten(experiment, tmp_path):
    image, link = tmp_path / 'a.png', tmp_path / 'link'
    Image.fromarray(generate_scene(0, (32, 48)).image).save(image)
    link.symlink_to(experiment[1])
    for out in (*experiment, image, link):
        before = out.read_bytes()
        with pytest.raises(UserError, match='is an input'):
            export_packed(*experiment, out, images=[image])
        assert out.read_bytes() == before


@pytest.mark.parametrize('options, words', [
    (['CONFIG', 'none.pth', 'x.bhv'], 'no checkpoint at none.pth'),
    (['CONFIG', 'CONFIG', 'x.bhv'], 'is not a checkpoint of torch'),
    (['CONFIG', 'CHECKPOINT', 'x.bhv', '--images', 'nowhere'], 'no images found at nowhere'),
    (['CONFIG', 'CHECKPOINT', 'x.bhv', '--cfg-options', 'model.decode_head.binary=False'],
     'binary=False'),
    (['CONFIG', 'CHECKPOINT', '.'], '. is a folder'),
    (['CONFIG', 'CHECKPOINT', '/dev/null/x.bhv'], '/dev/null'),
])
def test_bad_input_is_one_sentence(options, words, experiment, tmp_path, main, sentence,
                                   monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = dict(zip(('CONFIG', 'CHECKPOINT'), experiment))
    assert words in sentence(main, *(names.get(option, option) for option in options))
    assert not list(tmp_path.iterdir())
