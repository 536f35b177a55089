"""Predictions of torch: those of mmseg itself, from files of every kind, in one piece and in parts.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from native.segmentors import write_experiment
from PIL import Image

from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.inference.prediction import predict_files, predict_in_windows
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.torch_predictor import TorchPredictor

SLIDE = {'model.test_cfg.mode': 'slide', 'model.test_cfg.crop_size': (48, 64),
         'model.test_cfg.stride': (32, 40)}
ONE_SCORE = dict(head='SegformerHead', classes=2, head_options=dict(
    out_channels=1, threshold=0.35, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)))
CASES = {
    'whole': {}, 'slide': dict(cfg_options=SLIDE),
    'padded': dict(preprocessor=dict(test_cfg=dict(size_divisor=64))),
    'one score': ONE_SCORE, 'align_corners': dict(align_corners=True),
    'resized': dict(pipeline=[dict(type='Resize', scale=(120, 80), keep_ratio=True)]),
}


def make(folder, pipeline=(), cfg_options=None, **options):
    config, checkpoint = write_experiment(folder, pipeline, **options)
    if cfg_options:
        test_cfg = {key.rpartition('.')[2]: value for key, value in cfg_options.items()}
        config.write_text(config.read_text() + f"model['test_cfg'] = {test_cfg!r}\n")
    return config, checkpoint


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'scene.png'
    Image.fromarray(generate_scene(3, (90, 118)).image).save(path)
    return path


@pytest.mark.parametrize('case', CASES)
def test_labels_are_those_of_mmseg(case, image, tmp_path):
    from mmseg.apis import inference_model, init_model

    config, checkpoint = make(tmp_path, **CASES[case])
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
    report = predict_files([image], ModelSource(config=config, checkpoint=checkpoint,
                                                device='cpu'), tmp_path / 'out')
    assert report.written == [image]
    written = Image.open(tmp_path / 'out' / 'labels' / 'scene.png')
    assert np.array_equal(np.asarray(written), labels)


@pytest.mark.parametrize('case, border', [
    ('whole', 0), ('slide', 0), ('padded', 4), ('one score', 0), ('align_corners', 0)])
def test_an_image_in_one_window_is_the_image_in_one_piece(case, border, tmp_path):
    options = {key: value for key, value in CASES[case].items() if key != 'cfg_options'}
    predictor = TorchPredictor(*make(tmp_path, **options), 'cpu')
    # Beside padding the last cell is upsampled from its own scores alone.
    Image.fromarray(generate_scene(4, (60, 88)).image).save(tmp_path / 'a.png')
    image = predictor.load(tmp_path / 'a.png')
    labels = predict_in_windows(predictor, image, (128, 128))
    whole = predictor.predict(image)
    inside = (slice(0, 60 - border), slice(0, 88 - border))
    assert labels.shape == whole.shape and len(np.unique(whole)) > 1
    assert np.array_equal(labels[inside], whole[inside])
    assert len(predictor.classes) == len(predictor.palette) > whole.max()


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_files_of_unchanged_values_are_predicted_with_their_overlay(tmp_path, dtype):
    rasterio = pytest.importorskip('rasterio')
    config, checkpoint = write_experiment(tmp_path, in_channels=4)
    config.write_text(config.read_text().replace(
        "'LoadAerialImage'", "'LoadAerialImage', 'color_type': 'unchanged'"))
    scene = generate_scene(5, (52, 64))
    bands = np.concatenate([scene.image.transpose(2, 0, 1), scene.height[None]]).astype(dtype)
    with rasterio.open(tmp_path / 'a.tif', 'w', 'GTiff', 64, 52, 4, dtype=dtype,
                       photometric='RGB') as file:
        file.write(bands)
    source = ModelSource(config=config, checkpoint=checkpoint, device='cpu')
    for overlay in (True, False):
        report = predict_files([tmp_path / 'a.tif'], source, tmp_path / f'out{overlay}',
                               overlay=overlay)
        assert report.written and not report.failed
    if dtype == 'uint8':
        shown = Image.open(tmp_path / 'outTrue' / 'overlays' / 'a.png')
        labels = np.asarray(Image.open(tmp_path / 'outTrue' / 'labels' / 'a.png'))
        palette = np.asarray(source.load().palette)
        assert np.abs(np.asarray(shown) - (scene.image.astype(float) + palette[labels]) / 2
                      ).max() <= 0.5


@pytest.mark.parametrize('color_type, size', [('color', (90, 118)), ('unchanged', (118, 90))])
def test_labels_have_the_orientation_that_the_model_was_trained_on(color_type, size, image,
                                                                   tmp_path):
    config, checkpoint = write_experiment(tmp_path)
    config.write_text(config.read_text().replace(
        "'LoadAerialImage'", f"'LoadAerialImage', 'color_type': {color_type!r}"))
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(image).save(tmp_path / 'turned.jpg', exif=exif, quality=95)
    report = predict_files([tmp_path / 'turned.jpg'], ModelSource(
        config=config, checkpoint=checkpoint, device='cpu'), tmp_path / 'out')
    assert report.written and not report.failed
    for kind in ('labels', 'overlays'):
        assert Image.open(tmp_path / 'out' / kind / 'turned.png').size == size


@pytest.mark.parametrize('size', [(77, 150), (64, 61)])
def test_large_images_get_the_labels_of_their_raster(size, engine, tmp_path):
    rasterio = pytest.importorskip('rasterio')
    from bhvit_seg.native.packing import export_packed
    from bhvit_seg.raster.predict import WindowChoices, map_raster

    config, checkpoint = write_experiment(tmp_path)
    export_packed(config, checkpoint, tmp_path / 'model.bhv', verify=False)
    pixels = generate_scene(6, size).image
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    with rasterio.open(tmp_path / 'a.tif', 'w', 'GTiff', size[1], size[0], 3, dtype='uint8',
                       photometric='RGB', transform=rasterio.Affine(1, 0, 0, 0, -1, 0)) as file:
        file.write(pixels.transpose(2, 0, 1))
    for source in (ModelSource(str(tmp_path / 'model.bhv')),
                   ModelSource(config=str(config), checkpoint=str(checkpoint), device='cpu')):
        model = source.load()
        map_raster(tmp_path / 'a.tif', tmp_path / f'{model.digest}.tif', source, model,
                   windows=WindowChoices((48, 48), 0.25))
        with rasterio.open(tmp_path / f'{model.digest}.tif') as file:
            expected = file.read(1)
        out = tmp_path / model.digest
        assert predict_files([tmp_path / 'a.png'], source, out, window=48).written
        assert np.array_equal(np.asarray(Image.open(out / 'labels' / 'a.png')), expected)
        assert len(np.unique(expected)) > 1


def test_engine_labels_are_those_of_the_file(engine, image, tmp_path):
    from bhvit_seg.native import PackedSegmentor
    from bhvit_seg.native.packing import export_packed

    export_packed(*write_experiment(tmp_path), tmp_path / 'model.bhv', verify=False)
    predict_files([image], ModelSource(tmp_path / 'model.bhv'), tmp_path / 'out')
    expected = PackedSegmentor(tmp_path / 'model.bhv').predict(np.asarray(Image.open(image)))
    written = np.asarray(Image.open(tmp_path / 'out' / 'labels' / 'scene.png'))
    assert np.array_equal(written, expected)


def test_digests_tell_models_and_their_settings_apart(engine, tmp_path):
    from bhvit_seg.native.packing import export_packed

    config, checkpoint = write_experiment(tmp_path)
    for name, precision in (('a', '32'), ('b', '16')):
        export_packed(config, checkpoint, tmp_path / f'{name}.bhv', precision=precision,
                      verify=False)
    other = tmp_path / 'other.pth'
    content = torch.load(checkpoint, weights_only=True)
    content['state_dict']['decode_head.conv_seg.bias'] += 1
    torch.save(content, other)
    sources = [
        ModelSource(tmp_path / 'a.bhv'), ModelSource(tmp_path / 'b.bhv'),
        ModelSource(config=config, checkpoint=checkpoint, device='cpu'),
        ModelSource(config=config, checkpoint=other, device='cpu'),
        *(ModelSource(config=config, checkpoint=checkpoint, device='cpu', cfg_options=options)
          for options in (SLIDE, {'test_pipeline.0.color_type': 'unchanged'}))]
    digests = [source.load().digest for source in sources]
    assert len(set(digests)) == len(sources)
    assert digests == [source.load().digest for source in sources]
