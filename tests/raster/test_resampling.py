"""Rasters that are resampled on reading, against rasterio's own warping and plain means."""

import numpy as np
import pyproj
import pytest
import rasterio
from raster.rasters import write_raster
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import reproject

from bhvit_seg.errors import UserError
from bhvit_seg.inference.windows import Window
from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.reading import RasterSource

# Near the central meridian UTM is 0.04 % too short: half a metre of the ellipsoid to that.
UTM = dict(crs='EPSG:32632', transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6))
RGB = ColorInterp.red, ColorInterp.green, ColorInterp.blue


def smooth(size=(60, 130), seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (3, *size)).cumsum(1).cumsum(2)
    return (128 + 100 * np.sin(noise / 20)).astype(np.uint8)


def read_all(source) -> tuple[np.ndarray, np.ndarray]:
    return source.read(Window(0, 0, source.height, source.width))


@pytest.mark.parametrize('resolution, method', [
    (1.0, Resampling.average), (0.8, Resampling.average), (0.2, Resampling.bilinear)])
def test_pixels_are_those_of_warping_the_whole(resolution, method, tmp_path, caplog):
    bands = smooth()
    path = write_raster(tmp_path / 'a.tif', bands, **UTM)
    with RasterSource(path, ReadOptions(resolution=resolution)) as source:
        pixels, valid = read_all(source)
        size, transform, crs = (source.height, source.width), source.transform, source.crs
    assert size == (round(60 * 0.5 / resolution), round(130 * 0.5 / resolution)) and valid.all()
    assert crs == 'EPSG:32632'
    # The same extent.
    np.testing.assert_allclose(transform * size[::-1], UTM['transform'] * (130, 60))
    expected = np.zeros((3, *size), np.uint8)
    reproject(bands, expected, src_transform=UTM['transform'], src_crs=crs, dst_crs=crs,
              dst_transform=transform, resampling=method)
    difference = np.abs(pixels.transpose(2, 0, 1).astype(int) - expected)
    assert difference.max() <= 1 and (difference == 0).mean() > 0.99
    assert 'INIT_DEST' not in caplog.text  # a warning of GDAL 3.12


def test_windows_read_what_the_whole_has(tmp_path):
    path = write_raster(tmp_path / 'a.tif', smooth((30, 2000)), **UTM)
    for resolution in (0.6, 0.35):
        with RasterSource(path, ReadOptions(resolution=resolution)) as source:
            pixels, _ = read_all(source)
            for left, width in ((0, 100), (480, 64), (900, 300)):
                part, _ = source.read(Window(3, left, 11, width))
                assert np.array_equal(part, pixels[3:14, left:left + width])


def test_degrees_are_metres_on_the_ellipsoid(tmp_path):
    transform = rasterio.Affine(4e-6, 0, 10, 0, -3e-6, 60)
    path = write_raster(tmp_path / 'a.tif', smooth(), crs='EPSG:4326', transform=transform)
    with RasterSource(path, ReadOptions(resolution=0.25)) as source:
        middle = np.array([source.width / 2, source.height / 2])
        for step in ((1, 0), (0, 1)):
            start, end = source.transform * middle, source.transform * (middle + step)
            _, _, metres = pyproj.Geod(ellps='WGS84').inv(*start, *end)
            assert metres == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize('kind', ['nodata', 'given', 'mask', 'alpha', 'nan'])
def test_pixels_without_data_count_for_nothing(kind, tmp_path):
    bands = smooth().clip(1)
    empty = np.zeros(bands.shape[1:], bool)
    empty[:21, :33] = empty[40, 40] = True
    bands[:, empty] = 0
    options, profile = {}, {}
    if kind == 'nodata':
        profile['nodata'] = 0
    elif kind == 'given':
        options['nodata'] = 0
    elif kind == 'alpha':
        bands = np.concatenate([bands, np.uint8(255) * ~empty[None]])
        profile['colorinterp'] = [*RGB, ColorInterp.alpha]
    elif kind == 'nan':
        bands = np.where(empty, np.nan, bands.astype(np.float32))
        options['eight_bit'] = False
    path = write_raster(tmp_path / 'a.tif', bands, **UTM, **profile)
    if kind == 'mask':
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, 'r+') as dataset:
            dataset.write_mask(~empty)
    with RasterSource(path, ReadOptions(resolution=1.0, fill=(7, 7, 7), **options)) as source:
        pixels, valid = read_all(source)
    squares = np.where(empty, np.nan, bands[:3].astype(float)).reshape(3, 30, 2, 65, 2)
    counts = (~np.isnan(squares[0])).sum((1, 3))
    assert np.array_equal(valid, counts > 0) and 0 < valid.mean() < 1
    means = np.nansum(squares, (2, 4))[:, valid] / counts[valid]
    assert np.abs(pixels[valid].T - means).max() <= 0.5 + 1e-3
    assert (pixels[~valid] == 7).all()


@pytest.mark.parametrize('profile, options, words', [
    ({'crs': None}, {}, 'no CRS'),
    ({'colorinterp': [RGB[0], RGB[1], ColorInterp.alpha]}, {'alpha': False}, '--no-alpha'),
    ({}, {'resolution': 0}, '--resolution 0'),
    ({}, {'resolution': 1e-9}, '--resolution 1e-09'),
    ({}, {'bands': (1, 2, 4)}, 'names band 4'),
])
def test_what_cannot_be_resampled_is_named(profile, options, words, tmp_path):
    path = write_raster(tmp_path / 'a.tif', smooth(), **{**UTM, **profile})
    with pytest.raises(UserError, match=words):
        RasterSource(path, ReadOptions(**{'resolution': 1.0, **options}))
