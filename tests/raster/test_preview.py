import numpy as np
import pytest
from PIL import Image
from raster.rasters import NODATA, PALETTE, write_map, write_raster
from rasterio.enums import ColorInterp

from bhvit_seg.errors import UserError
from bhvit_seg.raster.opening import open_raster
from bhvit_seg.raster.preview import (
    NODATA_GREY,
    read_picture,
    write_preview,
)


def picture_of(path, size=None, **options):
    with open_raster(path) as dataset:
        return read_picture(dataset, size or dataset.shape, **options)


@pytest.mark.parametrize('opacity', [0, 0.25, 1])
def test_preview_is_the_image_under_the_map(tmp_path, opacity):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 30, 20), dtype=np.uint8)
    ids = rng.integers(0, 3, (30, 20))
    ids[:5] = NODATA
    image = write_raster(tmp_path / 'image.tif', pixels)
    labels = write_map(tmp_path / 'labels.tif', ids)
    out = tmp_path / 'preview.png'
    write_preview(image, labels, out, opacity=opacity)
    shown = np.asarray(Image.open(out))
    colours = np.array(PALETTE)[np.where(ids == NODATA, 0, ids)]
    expected = (1 - opacity) * pixels.transpose(1, 2, 0) + opacity * colours
    valid = ids != NODATA
    assert shown.shape == (30, 20, 4)
    assert (shown[..., 3] == 255 * valid).all()
    assert np.abs(shown[..., :3] - expected)[valid].max() <= 0.5
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        'image.tif', 'labels.tif', 'preview.png']


def test_large_rasters_are_shown_small(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 64, 96), dtype=np.uint8)
    ids = rng.integers(0, 3, (64, 96))
    ids.reshape(8, 8, 12, 8)[:, :5] = np.arange(96).reshape(8, 1, 12, 1) % 3
    ids[:8, :8] = NODATA
    image = write_raster(tmp_path / 'image.tif', pixels)
    labels = write_map(tmp_path / 'labels.tif', ids)
    means = pixels.reshape(3, 8, 8, 12, 8).mean((2, 4))
    assert np.abs(picture_of(image, (8, 12))[0] - means).max() <= 0.5
    out = tmp_path / 'preview.png'
    write_preview(image, labels, out, max_side=12, opacity=1)
    expected = np.array(PALETTE)[np.arange(96).reshape(8, 12) % 3]
    shown = np.asarray(Image.open(out))
    assert shown[0, 0, 3] == 0
    valid = shown[..., 3] > 0
    assert valid.sum() == 95 and (shown[valid, :3] == expected[valid]).all()


RED, GREEN, BLUE, ALPHA, GREY, OTHER = (
    ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha, ColorInterp.gray,
    ColorInterp.undefined)


@pytest.mark.parametrize('meanings, expected', [
    ((RED, GREEN, BLUE), (1, 2, 3)),
    ((BLUE, GREEN, RED, OTHER), (3, 2, 1)),
    ((GREY, OTHER, OTHER, OTHER), (1, 2, 3)),
    ((ALPHA, GREY, OTHER, OTHER), (2, 3, 4)),
    ((GREY,), (1,)),
    ((GREY, ALPHA), (1,)),
    ((GREY, OTHER), (1,)),
])
def test_bands_that_are_shown(tmp_path, meanings, expected):
    pixels = np.arange(len(meanings), dtype=np.uint8)[:, None, None] + np.zeros((1, 4, 5), np.uint8)
    image = write_raster(tmp_path / 'image.tif', 10 * pixels + 10, colorinterp=meanings)
    with open_raster(image) as dataset:
        shown, _ = read_picture(dataset, (4, 5))
    assert shown[:, 0, 0].tolist() == [10 * band for band in expected]


def test_alpha_says_where_the_image_is(tmp_path):
    pixels = np.full((4, 6, 8), 70, np.uint8)
    pixels[3] = 255
    pixels[:, :, :3] = 0
    image = write_raster(tmp_path / 'image.tif', pixels, colorinterp=(RED, GREEN, BLUE, ALPHA))
    shown, valid = picture_of(image)
    assert (valid == (np.arange(8) >= 3)).all()
    assert (shown[:, valid] == 70).all() and (shown[:, ~valid] == NODATA_GREY).all()


def test_sixteen_bits_are_stretched_without_nodata_and_tails(tmp_path):
    values = np.arange(1000, 2000, dtype=np.uint16).reshape(1, 25, 40)
    values[0, 0, :10] = 0
    values[0, 24, -1] = 65535
    image = write_raster(tmp_path / 'image.tif', values, nodata=0)
    shown, valid = picture_of(image)
    assert valid.sum() == 990 and not valid[0, :10].any()
    ordered = shown[0][valid].astype(int)
    assert (np.diff(ordered) >= 0).all() and ordered[0] == 0 and ordered[-1] == 255
    assert 0 < (ordered == 0).sum() < 30 and 0 < (ordered == 255).sum() < 30
    assert abs(ordered[495] - 127.5) < 3


def test_what_the_map_leaves_out_does_not_stretch(tmp_path):
    values = np.tile(np.linspace(0.2, 0.3, 100, dtype=np.float32), (1, 10, 1))
    values[:, :, :20] = -5000
    values[:, 0, 50] = np.nan
    image = write_raster(tmp_path / 'image.tif', values)
    shown, valid = picture_of(image, shown=np.arange(100) >= np.full((10, 1), 20))
    assert valid.sum() == 999 and shown[0, 0, 50] == NODATA_GREY
    assert shown[0, 5, 99] == 255 and shown[0, 5, 20] == 0 and 110 < shown[0, 5, 60] < 145


def test_refusals(tmp_path):
    image = write_raster(tmp_path / 'image.tif', np.zeros((3, 5, 6), np.uint8))
    labels = write_map(tmp_path / 'labels.tif', np.zeros((5, 6)))
    other = write_map(tmp_path / 'other.tif', np.zeros((5, 7)))
    out = tmp_path / 'preview.png'
    for arguments, words in (((tmp_path / 'nowhere.tif', labels), 'nowhere.tif'),
                             ((image, other), 'other.tif.*7 × 5.*6 × 5'),
                             ((image, image), 'image.tif is not a label raster')):
        with pytest.raises(UserError, match=words):
            write_preview(*arguments, out)
    assert not out.exists()
