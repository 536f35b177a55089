"""Maps of three real rasters, each with a trap of its own."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from bhvit_seg.errors import UserError
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.raster.predict import WindowChoices, WorkChoices, map_raster
from bhvit_seg.raster.reading import ReadOptions

pytestmark = pytest.mark.data


@pytest.fixture
def map_real(data_root, map_model, tmp_path):
    """A function that maps a real raster and returns both, opened, and the labels."""

    def run(name, channels=3, **reading):
        raster, out = data_root / 'geotiff' / name, tmp_path / name
        source = ModelSource(packed=str(map_model(channels)), threads=1)
        map_raster(raster, out, source, source.load(), ReadOptions(**reading),
                   WindowChoices((256, 256)), work=WorkChoices(overwrite=True))
        given, made = rasterio.open(raster), rasterio.open(out)
        assert (made.crs, made.transform, made.shape) == (given.crs, given.transform, given.shape)
        return given, made.read(1)

    return run


def test_undeclared_black_border_is_no_data(map_real):
    given, labels = map_real('5b90f92da0d7280005fab355_4310.tif', border_nodata='auto')
    pixels = given.read()
    # Of 18.12 % that are exactly 0 and 18.51 % that are nearly so, none within the image.
    empty = labels == 255
    assert 0.1812 < empty.mean() < 0.187
    assert (pixels.max(axis=0)[empty] <= 60).all()
    assert not empty[1024:].any() and not empty[900:, 100:].any()
    # Without asking it is data.
    assert (map_real('5b90f92da0d7280005fab355_4310.tif')[1] != 255).all()


def test_alpha_border_is_no_data(map_real):
    given, labels = map_real('pix4d_alpha_nodata.tif')
    np.testing.assert_array_equal(labels == 255, given.read(4) == 0)
    assert 0.12 < (labels == 255).mean() < 0.13


def test_declared_nodata_that_no_pixel_has_takes_nothing_away(map_real):
    _, labels = map_real('m_4709963_se_14_1_20200831.tif')
    assert (labels != 255).all()


def test_the_fourth_band_is_a_channel_where_the_model_has_four(map_real):
    name = 'm_4709963_se_14_1_20200831.tif'
    _, labels = map_real(name, channels=4)
    _, others = map_real(name, channels=4, bands=(4, 1, 2, 3))
    assert (labels != 255).all() and (labels != others).any()
    with pytest.raises(UserError, match='--bands'):
        map_real(name, channels=5)
