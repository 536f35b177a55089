from __future__ import annotations

import functools
import math
import pickle
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


def collar_in_loops(bands: np.ndarray, tolerance: int = 10) -> np.ndarray:
    """The black collar as its definition says, on one list of pixels after the other."""
    height, width = bands.shape[1:]
    dark = {(row, column) for row in range(height) for column in range(width)
            if bands[:, row, column].max() <= tolerance}
    high, wide = -(-height // 8), -(-width // 8)

    def pixels_of(square):
        return [(row, column) for row in range(square[0] * 8, min(height, square[0] * 8 + 8))
                for column in range(square[1] * 8, min(width, square[1] * 8 + 8))]

    def beside(square):
        """The pixels of the raster's outer edge beside a square outside of it."""
        row = {-1: 0, high: height - 1}.get(square[0])
        column = {-1: 0, wide: width - 1}.get(square[1])
        if row is not None and column is not None:
            return [(row, column)]
        if row is not None:
            return [(row, c) for c in range(square[1] * 8, min(width, square[1] * 8 + 8))]
        return [(r, column) for r in range(square[0] * 8, min(height, square[0] * 8 + 8))]

    ring = ([(-1, c) for c in range(-1, wide)] + [(r, wide) for r in range(-1, high)]
            + [(high, c) for c in range(wide, -1, -1)] + [(r, -1) for r in range(high, -1, -1)])
    plain = {square: dark.issuperset(beside(square)) for square in ring}
    corners = {(-1, -1): ((-1, 0), (0, -1)), (-1, wide): ((-1, wide - 1), (0, wide)),
               (high, wide): ((high, wide - 1), (high - 1, wide)),
               (high, -1): ((high, 0), (high - 1, -1))}
    for corner, (one, other) in corners.items():
        plain[corner] = plain[one] and plain[other]
    reached = set()
    for k in range(len(ring)):
        run = [ring[(k + step) % len(ring)] for step in range(8)]
        if all(plain[square] for square in run):
            reached.update(run)
    passable = {square for square in plain if plain[square]} | {
        (i, j) for i in range(high) for j in range(wide) if dark.issuperset(pixels_of((i, j)))}
    waiting = list(reached)
    while waiting:
        i, j = waiting.pop()
        for square in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if square in passable and square not in reached:
                reached.add(square)
                waiting.append(square)
    collar = set()
    for square in reached:
        if square in plain:
            collar.update((r + (square[0] == high) - (square[0] == -1),
                           c + (square[1] == wide) - (square[1] == -1))
                          for r, c in beside(square))
        else:
            collar.update(pixels_of(square))
    for _ in range(8):
        collar |= {place for place in dark if {
            (place[0] - 1, place[1]), (place[0] + 1, place[1]),
            (place[0], place[1] - 1), (place[0], place[1] + 1)} & collar}
    found = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            found[row, column] = (row, column) in collar or all(
                any((row + step * down, column + step * along) in collar for step in range(1, 9))
                for down, along in ((-1, 0), (1, 0), (0, -1), (0, 1)))
    return found


@given(seed=st.integers(0, 10_000), height=st.integers(1, 60), width=st.integers(1, 60))
@settings(max_examples=80, deadline=None)
def test_the_collar_is_what_its_definition_says(tmp_path_factory, seed, height, width):
    bands = blobs(seed, height, width)
    path = write(tmp_path_factory.mktemp('blobs') / 'a.tif', bands)
    np.testing.assert_array_equal(~valid_of(path), collar_in_loops(bands))
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


def test_a_known_collar_goes_along_and_is_not_searched_again(tmp_path, monkeypatch):
    bands = image(128, 128)
    bands[:, :50] = 0
    source = RasterSource(write(tmp_path / 'a.tif', bands), options('black'))
    source.read(Window(0, 0, 1, 1))
    monkeypatch.setattr('bhvit_seg.raster.reading.find_collar', None)
    other = pickle.loads(pickle.dumps(source))
    assert (other.read(Window(0, 0, 128, 128))[1] == (bands[0] > 0)).all()
    assert other.collar.packed.nbytes < 128 * 128 / 64


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
