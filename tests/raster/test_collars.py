from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from raster.rasters import write_raster as write
from scipy import ndimage

from bhvit_seg.errors import UserError
from bhvit_seg.inference.windows import Window
from bhvit_seg.raster import collars
from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.reading import RasterSource


def options(border: str | None, **given) -> ReadOptions:
    return ReadOptions(**{'channels': 3, 'fill': (1, 2, 3), 'border_nodata': border, **given})


def whole(source: RasterSource) -> Window:
    return Window(0, 0, source.height, source.width)


def valid_of(path: Path, border: str | None = 'black', **given) -> np.ndarray:
    with RasterSource(path, options(border, **given)) as source:
        return source.read(whole(source))[1]


def image(height: int, width: int, low=30, high=220, dtype='uint8') -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (3, height, width)).astype(dtype)


def footprint(height: int, width: int, degrees: float, share: float) -> np.ndarray:
    """Which pixels lie in a rectangle, turned about the middle, of a share of both sides."""
    down, along = np.mgrid[:height, :width]
    down, along = down - height / 2 + 0.5, along - width / 2 + 0.5
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ((abs(cos * down - sin * along) <= share * height / 2)
            & (abs(sin * down + cos * along) <= share * width / 2))


@pytest.mark.parametrize('degrees, share', [
    (0, 0.8), (0.7, 1.0), (7, 0.97), (20, 0.8), (80, 0.6)])
@pytest.mark.parametrize('colour', [0, 255])
def test_a_turned_footprint_is_found_to_the_pixel(tmp_path, degrees, share, colour):
    bands = image(317, 403)
    inside = footprint(317, 403, degrees, share)
    bands[:, ~inside] = colour
    path = write(tmp_path / 'turned.tif', bands)
    for border in ('black' if colour == 0 else 'white', 'auto'):
        np.testing.assert_array_equal(valid_of(path, border), inside)
    assert valid_of(path, 'white' if colour == 0 else 'black').all()
    assert valid_of(path, None).all()


@pytest.mark.parametrize('quality', [60, 90])
@pytest.mark.parametrize('border', ['black', 'white'])
def test_the_noise_of_compression_is_collar_and_the_image_is_not(tmp_path, border, quality):
    smooth = np.cumsum(image(512, 512).astype(float) - 125, axis=2)
    smooth = (90 + 60 * np.sin(smooth / 400)).astype(np.uint8)
    inside = footprint(512, 512, 20, 0.75)
    smooth[:, ~inside] = 0 if border == 'black' else 255
    path = write(tmp_path / 'noisy.tif', smooth, compress='jpeg', photometric='ycbcr', tiled=True,
                 blockxsize=128, blockysize=128, JPEG_QUALITY=quality)
    with rasterio.open(path) as dataset:
        stored = dataset.read()
    assert (stored[:, ~inside] != smooth[:, ~inside]).mean() > 0.01
    for asked in (border, 'auto'):
        valid = valid_of(path, asked)
        deep, outside = (ndimage.binary_erosion(mask, np.ones((3, 3)), steps, border_value=True)
                         for mask, steps in ((inside, 2), (~inside, 17)))
        assert not (inside & ~valid)[deep].any()
        # What is noisier than the tolerance lies in the last block of 16 pixels.
        assert not (valid & ~inside)[outside].any()
        assert (valid & ~inside).sum() < 0.04 * (~inside).sum()


def test_an_image_without_a_collar_has_none(tmp_path):
    bands = image(200, 300)
    bands[:, :, :20] = 4                 # dark water along a whole side, but not black
    bands[:, 50:110, 290:] = 255         # a roof at the edge
    path = write(tmp_path / 'full.tif', bands)
    with RasterSource(path, options('auto')) as source:
        assert source.read(whole(source))[1].all()
        assert source.collar.colours == () and not source.collar.touches(Window(0, 0, 9, 9))
    assert valid_of(path, 'white').all()
    np.testing.assert_array_equal(valid_of(path, 'black'), bands[0] != 4)


def test_declared_nodata_leads_into_the_collar(tmp_path):
    bands = image(128, 128)
    bands[:, :30] = 77                   # declared
    bands[:, 30:50] = 2                  # not declared, and not at the edge but for its sides
    bands[:, 30:50, :4] = bands[:, 30:50, -4:] = 99
    valid = valid_of(write(tmp_path / 'a.tif', bands, nodata=77))
    assert not valid[:30].any() and not valid[30:50, 4:-4].any()
    assert valid[30:50, :4].all() and valid[50:].all()


@functools.cache
def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """A raster of dark and bright blobs from one pixel to the whole side."""
    rng = np.random.default_rng(seed)
    bands = np.full((3, height, width), 100, np.uint8)
    for _ in range(int(rng.integers(1, 40))):
        top, left = rng.integers(0, height), rng.integers(0, width)
        high, wide = rng.integers(1, (height, width), endpoint=True) // rng.integers(1, 12, 2)
        bands[:, top:top + high + 1, left:left + wide + 1] = rng.choice([0, 0, 3, 9, 11, 250, 255])
    edge = int(rng.integers(0, 20))
    bands[:, :edge] = bands[:, :, :edge] = 0
    return bands


@given(seed=st.integers(0, 10_000), height=st.integers(1, 90), width=st.integers(1, 90),
       border=st.sampled_from(['black', 'white', 'auto']), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_window_has_the_mask_of_the_whole(tmp_path_factory, seed, height, width, border, data):
    path = write(tmp_path_factory.mktemp('blobs') / 'a.tif', blobs(seed, height, width))
    with RasterSource(path, options(border)) as source:
        pixels, valid = source.read(whole(source))
        for _ in range(5):
            top = data.draw(st.integers(0, height - 1))
            left = data.draw(st.integers(0, width - 1))
            window = Window(top, left, data.draw(st.integers(1, height - top)),
                            data.draw(st.integers(1, width - left)))
            read, read_valid = source.read(window)
            part = slice(top, window.bottom), slice(left, window.right)
            np.testing.assert_array_equal(read_valid, valid[part])
            np.testing.assert_array_equal(read, pixels[part])
    path.unlink()


def collar_by_definition(bands: np.ndarray, tolerance: int = 10) -> np.ndarray:
    """The black collar, by SciPy's morphology on squares of 8 x 8 pixels with a ring around them.

    A square of the ring is as dark as the raster's edge beside it.
    """
    dark = bands.max(axis=0) <= tolerance
    height, width = dark.shape
    padded = np.pad(dark, [(8, -side % 8 + 8) for side in dark.shape], 'edge')
    squares = padded.reshape(len(padded) // 8, 8, -1, 8).all(axis=(1, 3))
    rows, columns = squares.shape
    for i, j in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        squares[i, j] = squares[i, 1 if j == 0 else -2] and squares[1 if i == 0 else -2, j]
    # The collar begins at eight dark squares of the ring in a row.
    ring = ([(0, j) for j in range(columns)] + [(i, columns - 1) for i in range(1, rows)]
            + [(rows - 1, j) for j in range(columns - 2, -1, -1)]
            + [(i, 0) for i in range(rows - 2, 0, -1)])
    seeds = np.zeros_like(squares)
    for k in range(len(ring)):
        run = [ring[(k + step) % len(ring)] for step in range(8)]
        if all(squares[place] for place in run):
            seeds[tuple(np.transpose(run))] = True
    reached = ndimage.binary_propagation(seeds, mask=squares)
    # Pixels, and one of the ring on each side.
    row_of, column_of = (np.concatenate([[0], 1 + np.arange(side) // 8, [count - 1]])
                         for side, count in ((height, rows), (width, columns)))
    collar = reached[np.ix_(row_of, column_of)]
    grown = ndimage.binary_dilation(collar, iterations=8, mask=np.pad(dark, 1) | collar)
    # Within eight steps in all four directions.
    near = [ndimage.maximum_filter(grown, size=9, axes=axis, origin=origin, mode='constant')
            for axis in (0, 1) for origin in (-4, 4)]
    return np.all(near, axis=0)[1:-1, 1:-1]


@given(seed=st.integers(0, 10_000), height=st.integers(1, 60), width=st.integers(1, 60))
@settings(max_examples=80, deadline=None)
def test_the_collar_is_what_its_definition_says(tmp_path_factory, seed, height, width):
    bands = blobs(seed, height, width)
    path = write(tmp_path_factory.mktemp('blobs') / 'a.tif', bands)
    np.testing.assert_array_equal(~valid_of(path), collar_by_definition(bands))
    path.unlink()


def snake(size: int) -> np.ndarray:
    """A collar that winds through the raster as a spiral of 16 pixels between walls of 16."""
    bands = np.full((3, size, size), 90, np.uint8)
    for step in range(0, size // 2, 32):
        stop = size - step
        bands[:, step:step + 16, max(0, step - 32):stop] = 0
        bands[:, step:stop, stop - 16:stop] = 0
        bands[:, stop - 16:stop, step:stop] = 0
        bands[:, step + 32:stop, step:step + 16] = 0
    return bands


@pytest.mark.parametrize('layout, chunk', [
    (dict(tiled=True, blockxsize=32, blockysize=16), 16), (dict(blockysize=3), 50),
    (dict(blockysize=320), 1024)])
def test_the_collar_does_not_depend_on_how_it_is_searched(tmp_path, monkeypatch, layout, chunk):
    monkeypatch.setattr(collars, 'CHUNK', chunk)
    bands = snake(320)
    path = write(tmp_path / 'snake.tif', bands, **layout)
    np.testing.assert_array_equal(valid_of(path), bands[0] > 0)


RANGE = dict(value_range=(0, 3000))


@pytest.mark.parametrize('dtype, plain, noisy, given', [
    ('uint16', 0, 8, {}), ('int16', 0, -90, RANGE), ('uint8', 0, 9, dict(value_range=(20, 120))),
    ('uint16', 65535, 65535, {}), ('float32', 3000, 3000, RANGE)])
def test_black_and_white_of_other_types(tmp_path, dtype, plain, noisy, given):
    bands = image(128, 128, dtype=dtype)
    if dtype != 'uint8':
        bands *= 10
    bands[:, :50] = plain
    bands[:, 1:50:7] = noisy
    path = write(tmp_path / 'deep.tif', bands)
    valid = valid_of(path, 'white' if plain else 'black', eight_bit=False, **given)
    assert not valid[:50].any() and valid[50:].all()


def test_a_type_without_a_white_is_refused(tmp_path):
    path = write(tmp_path / 'a.tif', image(16, 16, dtype='float32'))
    with pytest.raises(UserError, match='float32.*--value-range'):
        valid_of(path, eight_bit=False)


@pytest.mark.data
def test_the_real_collar(data_root):
    path = data_root / 'geotiff' / '5b90f92da0d7280005fab355_4310.tif'
    with rasterio.open(path) as dataset:
        brightest = dataset.read().max(axis=0)
    invalid = ~valid_of(path, 'auto')
    # 18.12 % of the file are exactly 0, 18.51 % at most 10, of which a part is shadow.
    assert 0.1845 < invalid.mean() < 0.1855
    # The flight area lies below a line from (882, 0) over (360, 950) to (0, 1870).
    down, along = np.mgrid[:2048, :2048]
    image_side = down > np.interp(along, [0, 950, 1870, 2047], [900, 380, 30, 110])
    collar_side = down < np.interp(along, [0, 950, 1600, 1860, 2047], [860, 340, 90, 5, 0])
    assert invalid[collar_side].all() and (brightest[collar_side] <= 30).all()
    assert (invalid & image_side).sum() < 300
