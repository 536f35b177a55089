"""Colours change, measurements do not."""

from __future__ import annotations

import numpy as np
import pytest
from mmseg.datasets.transforms import PhotoMetricDistortion

from bhvit_seg.datasets.transforms import CameraPhotoMetricDistortion


@pytest.mark.parametrize('channels', [3, 4, 7])
def test_camera_channels_change_as_in_mmseg_and_others_stay(channels):
    camera = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    others = np.random.default_rng(1).normal(0, 1000, (20, 30, channels - 3)).astype(np.float32)
    for seed in range(10):
        np.random.seed(seed)
        truth = PhotoMetricDistortion()(dict(img=camera.copy()))['img']
        np.random.seed(seed)
        image = np.concatenate([camera.astype(np.float32), others], axis=2)
        result = CameraPhotoMetricDistortion()(dict(img=image))['img']
        assert (result[..., :3] == truth).all()
        assert (result[..., 3:] == others).all()
        assert result.shape == image.shape


def test_8_bit_image_stays_8_bit():
    image = np.full((4, 4, 3), 100, np.uint8)
    assert CameraPhotoMetricDistortion()(dict(img=image))['img'].dtype == np.uint8
