from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

from bhvit_seg.datasets.image_io import write_labels
from bhvit_seg.errors import UserError
from bhvit_seg.inference.pictures import write_overlay
from bhvit_seg.inference.prediction import predict_files
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.torch_predictor import TorchPredictor

BHVIT_CONFIG = """
custom_imports = dict(imports=['bhvit_seg.modules'])
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='MultiChannelSegDataPreProcessor', mean=[120.] * 3, std=[60.] * 3),
    backbone=dict(
        type='BHViT', arch=dict(
            depths=(1, 1, 1, 1), channels=(16, 32, 64, 128), mlp_channels=(32, 64, 128, 256),
            num_heads=(1, 2, 4, 8))),
    decode_head=dict(
        type='FCNHead', in_channels=128, channels=8, num_classes=2,
        loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
test_pipeline = [dict(type='LoadAerialImage'), dict(type='PackSegInputs')]
"""


@pytest.fixture
def main(tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tool('tools/predict.py')


@pytest.fixture
def model(trained):
    return {'config': trained[0], 'checkpoint': trained[1]}


def predict(inputs, config, checkpoint, out, **options):
    return predict_files(inputs, ModelSource(config=config, checkpoint=checkpoint), out, **options)


def test_folder_is_predicted_with_its_subfolders(model, tiny_data, tmp_path):
    report = predict([tiny_data / 'images'], **model, out=tmp_path)
    assert len(report.written) == 9 and not report.failed and not report.skipped
    for kind in ('labels', 'overlays'):
        assert len(list((tmp_path / kind / 'train').iterdir())) == 6
    image = Image.open(tiny_data / 'images' / 'val' / '0.png')
    labels = Image.open(tmp_path / 'labels' / 'val' / '0.png')
    assert labels.mode == 'P' and labels.size == image.size
    assert labels.getpalette()[:6] == [0, 0, 0, 255, 255, 255]
    ids = TorchPredictor(**model)(tiny_data / 'images' / 'val' / '0.png')
    assert ids.shape == (40, 48) and np.array_equal(np.asarray(labels), ids)
    # Half of the image, half of black or white.
    overlay = np.asarray(Image.open(tmp_path / 'overlays' / 'val' / '0.png')).astype(int)
    expected = (np.asarray(image) + 255 * ids[..., None]) / 2
    assert np.abs(overlay - expected).max() <= 0.5


def test_labels_alone(model, tiny_data, tmp_path):
    predict([tiny_data / 'images' / 'val' / '2.png'], **model, out=tmp_path, overlay=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['labels', 'prediction.json']


def test_one_bad_image_does_not_lose_the_others(model, tiny_data, tmp_path, main, capsys):
    shutil.copytree(tiny_data / 'images' / 'val', tmp_path / 'in')
    whole = (tmp_path / 'in' / '1.png').read_bytes()
    (tmp_path / 'in' / '1.png').write_bytes(whole[:len(whole) // 2])
    status = main(['in', '--config', str(model['config']), '--checkpoint',
                   str(model['checkpoint']), '--out', 'out'])
    printed = capsys.readouterr()
    assert status == 1
    assert '2 predicted into out, 0 already there, 1 failed' in printed.out
    errors = [line for line in printed.err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and '1.png' in errors[0]
    assert sorted(path.name for path in (tmp_path / 'out' / 'labels').iterdir()) == [
        '0.png', '2.png']


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P'])
def test_grey_transparent_and_paletted_images_are_read_as_colours(mode, model, tmp_path):
    image = Image.fromarray(np.full((34, 20), 90, np.uint8)).convert(mode)
    image.save(tmp_path / 'image.png')
    report = predict([tmp_path / 'image.png'], **model, out=tmp_path / 'out')
    assert not report.failed
    assert Image.open(tmp_path / 'out' / 'labels' / 'image.png').size == (20, 34)


def test_wrong_number_of_channels_names_the_image(trained, tiny_data, tmp_path):
    config = tmp_path / 'four.py'
    config.write_text(trained[0].read_text() + (
        "model.update(data_preprocessor=dict(type='MultiChannelSegDataPreProcessor', "
        'mean=[0.] * 4, std=[1.] * 4))\n'))
    report = predict([tiny_data / 'images' / 'val' / '0.png'], config, trained[1],
                     tmp_path / 'out')
    sentence, = report.failed.values()
    assert '3 channels' in sentence and '0.png' in sentence


def test_image_smaller_than_a_patch_is_named(tmp_path):
    config = tmp_path / 'bhvit.py'
    config.write_text(BHVIT_CONFIG)
    with pytest.raises(UserError):
        TorchPredictor(config, tmp_path / 'none.pth')
    cfg = Config.fromfile(str(config))
    model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')
    for name, size in (('small', (3, 9)), ('large', (33, 50))):
        Image.new('RGB', size).save(tmp_path / f'{name}.png')
    report = predict([tmp_path / 'small.png', tmp_path / 'large.png'], config,
                     tmp_path / 'weights.pth', tmp_path / 'out')
    assert [path.name for path in report.written] == ['large.png']
    sentence, = report.failed.values()
    assert 'small.png' in sentence and 'patch' in sentence


@pytest.mark.parametrize('options, words', [
    (['nowhere'], 'no images found at nowhere'),
    (['.'], 'no images found at .'),
    (['IMAGE', '--opacity', '3'], '--opacity is 3.0'),
    (['IMAGE', '--config', 'none.py'], 'no config at none.py'),
    (['IMAGE', '--checkpoint', 'none.pth'], 'no checkpoint at none.pth'),
    (['IMAGE', '--out', '/dev/null/x'], '--out'),
    (['IMAGE', '--device', 'cuda:77'], 'cuda:77'),
    (['IMAGE', '--packed', 'none.bhv'], '--packed and --config'),
    (['IMAGE', '--threads', '2'], '--threads'),
    (['IMAGE', '--cfg-options', 'model'], 'KEY=VALUE'),
])
def test_bad_input_is_one_sentence(options, words, model, tiny_data, tmp_path, main, sentence):
    image = tiny_data / 'images' / 'val' / '0.png'
    usual = ['--config', model['config'], '--checkpoint', model['checkpoint'], '--out', 'out']
    given = [image if option == 'IMAGE' else option for option in options]
    assert words in sentence(main, given[0], *usual, *given[1:])


@pytest.mark.parametrize('options, words', [
    ([], '--packed, or --config and --checkpoint'),
    (['--config', 'x.py'], '--packed, or --config and --checkpoint'),
    (['--packed', 'x.bhv', '--checkpoint', 'x.pth'], '--packed and --checkpoint'),
    (['--packed', 'x.bhv', '--model', 'y'], '--model y and --packed x.bhv'),
    (['--model', 'no-such'], 'no model at no-such'),
    (['--packed', 'x.bhv', '--device', 'cpu'], '--packed and --device'),
    (['--packed', 'x.bhv', '--cfg-options', 'a=1'], '--packed and --cfg-options'),
])
def test_exactly_one_way_to_predict_is_given(options, words, main, sentence):
    assert words in sentence(main, 'image.png', '--out', 'out', *options)


def test_id_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match='256'):
        write_labels(tmp_path / 'x.png', np.array([[256]]), None)
    write_labels(tmp_path / 'x.png', np.array([[0, 255]]), None)
    assert np.asarray(Image.open(tmp_path / 'x.png')).tolist() == [[0, 255]]


@pytest.mark.parametrize('opacity, expected', [(0, 100), (1, 200), (0.25, 125)])
def test_opacity_is_the_share_of_the_colours(opacity, expected, tmp_path):
    image = np.full((1, 1, 3), 100, np.uint8)
    write_overlay(tmp_path / 'x.png', image, np.array([[1]]), [[0] * 3, [200] * 3], opacity)
    assert np.asarray(Image.open(tmp_path / 'x.png')).tolist() == [[[expected] * 3]]


def test_command_says_how_large_images_were_predicted(model, tiny_data, tmp_path, main, capsys,
                                                      monkeypatch):
    monkeypatch.setattr('bhvit_seg.inference.prediction.MAX_WHOLE', 40 * 48 - 1)
    given = [str(tiny_data / 'images' / 'val'), '--config', str(model['config']), '--checkpoint',
             str(model['checkpoint']), '--out', 'out']
    assert main(given) == 0
    printed = capsys.readouterr()
    note, = [line for line in printed.err.splitlines() if line.startswith('note: ')]
    assert '0.png and 2 more images' in note and '--whole' in note
    for option in (['--whole'], ['--window', '32']):
        assert main([*given, *option]) == 0
        printed = capsys.readouterr()
        assert '3 predicted' in printed.out and 'note: ' not in printed.err
