"""Prediction of files from packed models, against torch's and without torch."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.transforms import Resize
from native.segmentors import build_segmentor, write_experiment
from PIL import Image

from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.errors import UserError
from bhvit_seg.inference.inputs import find_images
from bhvit_seg.inference.packed_predictor import PackedPredictor
from bhvit_seg.inference.prediction import predict_files
from bhvit_seg.inference.resizing import label_resized, resize
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.torch_predictor import TorchPredictor
from bhvit_seg.native.packing import export_packed, pack_model

SIZES = (64, 64), (70, 45)

@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for seed, size in enumerate(SIZES):
        Image.fromarray(generate_scene(seed, size).image).save(folder / f'{seed}.png')
    return folder


@pytest.fixture
def predict(images, tmp_path):
    """A function that predicts the images with the packed model."""
    return lambda **options: predict_files(
        [images], ModelSource(tmp_path / 'model.bhv'), tmp_path / 'out', **options)


@pytest.mark.parametrize('align_corners', [False, True])
def test_labels_are_those_of_upsampled_logits(align_corners):
    logits = torch.randn(6, 11, 14, generator=torch.Generator().manual_seed(0))
    scores = logits[None]
    sizes = [(44, 55), (30, 61)]
    for size in sizes:
        scores = F.interpolate(scores, size, mode='bilinear', align_corners=align_corners)
    labels = label_resized(logits.numpy(), sizes, align_corners)
    assert labels.shape == (30, 61) and labels.dtype == np.uint8
    two_best = scores[0].topk(2, 0).values
    clear = (two_best[0] - two_best[1]).numpy() > 1e-5
    assert clear.mean() > 0.99 and np.array_equal(labels[clear], scores[0].argmax(0).numpy()[clear])
    # The first of equal classes wins.
    assert label_resized(np.ones((3, 2, 2), np.float32), [(4, 4)], align_corners).max() == 0


@pytest.mark.parametrize('keep_ratio', [True, False])
@pytest.mark.parametrize('dtype, channels', [(np.uint8, 3), (np.float32, 4), (np.float32, 1)])
@pytest.mark.parametrize('size', [(37, 101), (101, 37), (64, 64)])
def test_images_are_resized_as_in_test_pipelines(size, dtype, channels, keep_ratio):
    image = np.random.default_rng(0).integers(0, 256, (*size, channels)).astype(dtype)
    expected = Resize(scale=(160, 48), keep_ratio=keep_ratio).transform({'img': image})['img']
    actual = resize(image, {'scale': [160, 48], 'keep_ratio': keep_ratio})
    assert np.array_equal(actual, expected.reshape(actual.shape))
    assert resize(image, None) is image


@pytest.mark.parametrize('divisor', [1, 32])
@pytest.mark.parametrize('pipeline', [
    [], [dict(type='Resize', scale=(256, 96), keep_ratio=True)],
    [dict(type='ResizeShortestEdge', scale=50, max_size=60)],
], ids=['as it is', 'enlarged', 'reduced'])
def test_labels_are_those_of_torch(pipeline, divisor, engine, images, predict, tmp_path):
    config, checkpoint = write_experiment(
        tmp_path, pipeline, preprocessor=dict(test_cfg=dict(size_divisor=divisor)))
    # A random network is far more sensitive than a trained one: no part in 16 bits.
    export_packed(config, checkpoint, tmp_path / 'model.bhv', precision='32')
    report = predict()
    assert len(report.written) == 2 and not report.failed
    predictor = TorchPredictor(config, checkpoint, 'cpu')
    for image in sorted(images.iterdir()):
        expected = predictor(image)
        labels = np.asarray(Image.open(tmp_path / 'out' / 'labels' / image.name))
        assert labels.shape == expected.shape and len(np.unique(expected)) > 2
        assert (labels != expected).mean() < 0.02
        overlay = Image.open(tmp_path / 'out' / 'overlays' / image.name)
        assert overlay.size == Image.open(image).size


def test_models_of_camera_and_lidar(engine, images, predict, tmp_path):
    lidar = tmp_path / 'lidar'
    lidar.mkdir()
    for seed, size in enumerate(SIZES):
        height = generate_scene(seed, size).height
        height[3, 4] = -9999
        assert cv2.imwrite(str(lidar / f'{seed}.tif'), height)
    config, checkpoint = write_experiment(
        tmp_path, [dict(type='LoadLidarChannels', nodata=-9999., fill=2.)], in_channels=4)
    report = export_packed(config, checkpoint, tmp_path / 'model.bhv', lidar=lidar,
                           images=find_images([images], tmp_path / 'out'), precision='32')
    assert report.verification.images == 2
    with pytest.raises(UserError, match='--lidar'):
        predict()
    predict(lidar=lidar)
    expected = TorchPredictor(config, checkpoint, 'cpu')(images / '0.png', lidar / '0.tif')
    labels = np.asarray(Image.open(tmp_path / 'out' / 'labels' / '0.png'))
    assert (labels != expected).mean() < 0.02
    (lidar / '1.tif').unlink()
    report = predict(lidar=lidar, overwrite=True)
    sentence, = report.failed.values()
    assert 'no raster' in sentence and len(report.written) == 1


def test_packed_models_that_say_nothing_about_images_are_named(engine, tmp_path):
    pack_model(build_segmentor(), tmp_path / 'model.bhv')
    with pytest.raises(UserError, match='model.bhv .*palette'):
        PackedPredictor(tmp_path / 'model.bhv')
