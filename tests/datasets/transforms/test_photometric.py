"""Colours change, measurements do not."""

import numpy as np
import pytest
from mmseg.datasets.transforms import PhotoMetricDistortion

from bhvit_seg.datasets.transforms import CameraPhotoMetricDistortion


@pytest.mark.parametrize('channels, dtype', [(3, np.uint8), (3, np.float32), (7, np.float32)])
def test_camera_channels_change_as_in_mmseg_and_others_stay(channels, dtype):
    rng = np.random.default_rng(0)
    camera = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    others = rng.normal(0, 1000, (20, 30, channels - 3)).astype(dtype)
    for seed in range(10):
        np.random.seed(seed)
        truth = PhotoMetricDistortion()(dict(img=camera.copy()))['img']
        np.random.seed(seed)
        result = CameraPhotoMetricDistortion()(
            dict(img=np.concatenate([camera.astype(dtype), others], axis=2)))['img']
        assert (result[..., :3] == truth).all() and (result[..., 3:] == others).all()
        assert result.shape == (20, 30, channels)
        assert result.dtype == (dtype if channels > 3 else np.uint8)
