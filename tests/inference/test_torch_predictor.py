"""Predictions of torch: those of mmseg itself, from files of every kind, in one piece and in parts.
"""

import numpy as np
import pytest
import torch
from native.segmentors import write_experiment
from PIL import Image
from raster.rasters import write_raster

from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.inference.prediction import predict_files, predict_in_windows
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.torch_predictor import TorchPredictor

SLIDE = dict(mode='slide', crop_size=(48, 64), stride=(32, 40))
ONE_SCORE = dict(head='SegformerHead', classes=2, head_options=dict(
    out_channels=1, threshold=0.35, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)))
CASES = {
    'whole': {}, 'slide': {},
    'padded': dict(preprocessor=dict(test_cfg=dict(size_divisor=64))),
    'one score': ONE_SCORE, 'align_corners': dict(align_corners=True),
    'resized': dict(pipeline=[dict(type='Resize', scale=(120, 80), keep_ratio=True)]),
}


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'scene.png'
    Image.fromarray(generate_scene(3, (90, 118)).image).save(path)
    return path


def torch_source(config, checkpoint, **options):
    return ModelSource(config=str(config), checkpoint=str(checkpoint), device='cpu', **options)


def read_unchanged(folder, color_type='unchanged', **options):
    """Write an experiment whose images are read in another way."""
    config, checkpoint = write_experiment(folder, **options)
    config.write_text(config.read_text().replace(
        "'LoadAerialImage'", f"'LoadAerialImage', 'color_type': {color_type!r}"))
    return torch_source(config, checkpoint)


def write_tiff(path, bands):
    return write_raster(path, bands, photometric='RGB')


@pytest.mark.parametrize('case', CASES)
def test_labels_are_those_of_mmseg(case, image, tmp_path):
    from mmseg.apis import inference_model, init_model

    config, checkpoint = write_experiment(tmp_path, **CASES[case])
    if case == 'slide':
        config.write_text(config.read_text() + f"model['test_cfg'] = {SLIDE!r}\n")
    weights = torch.load(checkpoint, weights_only=True)
    n = CASES[case].get('classes', 5)
    torch.save({**weights, 'meta': {'dataset_meta': {
        'classes': [f'class {i}' for i in range(n)], 'palette': [[9 * i] * 3 for i in range(n)]}}},
        checkpoint)
    expected = inference_model(init_model(str(config), str(checkpoint), device='cpu'), str(image))
    predictor = TorchPredictor(config, checkpoint, 'cpu')
    labels = predictor(image)
    assert np.array_equal(labels, expected.pred_sem_seg.data[0].numpy())
    assert len(np.unique(labels)) > 1 and predictor.slides == (case == 'slide')
    report = predict_files([image], torch_source(config, checkpoint), tmp_path / 'out')
    assert report.written == [image]
    written = Image.open(tmp_path / 'out' / 'labels' / 'scene.png')
    assert np.array_equal(np.asarray(written), labels)


@pytest.mark.parametrize('case, border', [
    ('whole', 0), ('padded', 4), ('one score', 0), ('align_corners', 0)])
def test_an_image_in_one_window_is_the_image_in_one_piece(case, border, tmp_path):
    predictor = TorchPredictor(*write_experiment(tmp_path, **CASES[case]), 'cpu')
    # Beside padding the last cell is upsampled from its own scores alone.
    Image.fromarray(generate_scene(4, (60, 88)).image).save(tmp_path / 'a.png')
    image = predictor.load(tmp_path / 'a.png')
    labels = predict_in_windows(predictor, image, (128, 128))
    whole = predictor.predict(image)
    inside = (slice(0, 60 - border), slice(0, 88 - border))
    assert labels.shape == whole.shape and len(np.unique(whole)) > 1
    assert np.array_equal(labels[inside], whole[inside])
    assert len(predictor.classes) == len(predictor.palette) > whole.max()


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_files_of_unchanged_values_are_predicted_with_their_overlay(tmp_path, dtype):
    source = read_unchanged(tmp_path, in_channels=4)
    scene = generate_scene(5, (52, 64))
    bands = np.concatenate([scene.image.transpose(2, 0, 1), scene.height[None]]).astype(dtype)
    report = predict_files([write_tiff(tmp_path / 'a.tif', bands)], source, tmp_path / 'out')
    assert report.written and not report.failed
    if dtype == 'uint8':
        shown, labels = (np.asarray(Image.open(tmp_path / 'out' / kind / 'a.png'))
                         for kind in ('overlays', 'labels'))
        palette = np.asarray(source.load().palette)
        assert np.abs(shown - (scene.image.astype(float) + palette[labels]) / 2).max() <= 0.5


@pytest.mark.parametrize('size', [(77, 150), (64, 61)])
def test_large_images_get_the_labels_of_their_raster(size, engine, tmp_path):
    rasterio = pytest.importorskip('rasterio')
    from bhvit_seg.native.packing import export_packed
    from bhvit_seg.raster.predict import WindowChoices, map_raster

    config, checkpoint = write_experiment(tmp_path)
    export_packed(config, checkpoint, tmp_path / 'model.bhv', verify=False)
    pixels = generate_scene(6, size).image
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    write_tiff(tmp_path / 'a.tif', pixels.transpose(2, 0, 1))
    for source in (ModelSource(str(tmp_path / 'model.bhv')), torch_source(config, checkpoint)):
        model = source.load()
        map_raster(tmp_path / 'a.tif', tmp_path / f'{model.digest}.tif', source, model,
                   windows=WindowChoices((48, 48), 0.25))
        with rasterio.open(tmp_path / f'{model.digest}.tif') as file:
            expected = file.read(1)
        out = tmp_path / model.digest
        assert predict_files([tmp_path / 'a.png'], source, out, window=48).written
        assert np.array_equal(np.asarray(Image.open(out / 'labels' / 'a.png')), expected)
        assert len(np.unique(expected)) > 1


def test_digests_tell_models_and_their_settings_apart(engine, tmp_path):
    from bhvit_seg.native.packing import export_packed

    config, checkpoint = write_experiment(tmp_path)
    for precision in ('32', '16'):
        export_packed(config, checkpoint, tmp_path / f'{precision}.bhv', precision=precision,
                      verify=False)
    other = tmp_path / 'other.pth'
    content = torch.load(checkpoint, weights_only=True)
    content['state_dict']['decode_head.conv_seg.bias'] += 1
    torch.save(content, other)
    sources = [
        ModelSource(tmp_path / '32.bhv'), ModelSource(tmp_path / '16.bhv'),
        torch_source(config, checkpoint), torch_source(config, other),
        *(torch_source(config, checkpoint, cfg_options=options) for options in (
            {'model.test_cfg': SLIDE}, {'test_pipeline.0.color_type': 'unchanged'}))]
    digests = [source.load().digest for source in sources]
    assert len(set(digests)) == len(sources)
    assert digests == [source.load().digest for source in sources]
