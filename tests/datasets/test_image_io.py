"""Files are read as they are, and a damaged one is named."""

from __future__ import annotations

import importlib
import io
import os
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from bhvit_seg.datasets.image_io import read_image, read_mask, read_pixels, read_raster
from bhvit_seg.errors import UserError

READERS = [read_image, read_mask, read_raster]


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (61, 47, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 2)


def write(path, array, *options):
    assert cv2.imwrite(str(path), array, *options)
    return str(path)


def says_one_sentence(error, path):
    text = str(error.value)
    return str(path) in text and '\n' not in text


def test_image_is_blue_first_of_three_channels(tmp_path, picture):
    path = str(tmp_path / 'a.png')
    Image.fromarray(picture).save(path)
    assert (read_image(path) == picture[..., ::-1]).all()


def test_grey_image_has_three_channels_unless_unchanged(tmp_path, picture):
    path = write(tmp_path / 'a.png', picture[..., 0])
    assert (read_image(path) == picture[..., :1]).all()
    assert read_image(path).shape == (61, 47, 3)
    assert read_image(path, 'unchanged').shape == (61, 47, 1)


def test_image_of_four_bands_keeps_its_values(tmp_path, picture):
    near_infrared = picture[..., 1] // 2
    path = str(tmp_path / 'a.tif')
    Image.fromarray(np.dstack([picture, near_infrared])).save(path)
    expected = np.dstack([picture[..., ::-1], near_infrared])
    assert (read_image(path, 'unchanged') == expected).all()
    assert (read_image(path) == expected[..., :3]).all()


def test_image_of_16_bit_bands_is_no_colour(tmp_path, picture):
    path = write(tmp_path / 'a.tif', picture.astype(np.uint16) * 16)
    with pytest.raises(UserError, match='unchanged') as error:
        read_image(path)
    assert says_one_sentence(error, path)
    assert (read_image(path, 'unchanged') == picture.astype(np.uint16) * 16).all()


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif'])
@pytest.mark.parametrize('kept', [0.3, 0.9, 0.99])
def test_truncated_file_is_named(tmp_path, picture, capfd, reader, suffix, kept):
    path = tmp_path / f'cut{suffix}'
    write(path, picture)
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * kept)])
    with pytest.raises(UserError) as error:
        reader(str(path))
    assert says_one_sentence(error, path)
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('content, says', [(None, 'does not exist'), (b'', 'empty'),
                                           (b'no image at all', 'decoded')])
def test_missing_empty_and_foreign_files_are_named(tmp_path, reader, content, says):
    path = tmp_path / 'a.png'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        reader(str(path))
    assert says_one_sentence(error, path)


def test_damaged_png_chunk_is_named(tmp_path, picture):
    path = tmp_path / 'a.png'
    write(path, picture)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match='a.png'):
        read_image(str(path))


def test_jpeg_with_thumbnail_is_truncated_where_the_picture_ends(tmp_path, picture):
    thumbnail = cv2.imencode('.jpg', picture[::4, ::4])[1].tobytes()
    exif = b'Exif\0\0' + thumbnail
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    whole = cv2.imencode('.jpg', picture)[1].tobytes()
    whole = whole[:2] + segment + whole[2:]
    path = tmp_path / 'a.jpg'
    path.write_bytes(whole)
    assert read_image(str(path)).shape == picture.shape
    path.write_bytes(whole[:-200])
    with pytest.raises(UserError, match='truncated'):
        read_image(str(path))


@pytest.mark.parametrize('trailing', [b'', b'\0' * 64])
def test_whole_jpeg_may_be_followed_by_anything(tmp_path, picture, trailing):
    path = tmp_path / 'a.jpg'
    path.write_bytes(cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
                     + trailing)
    assert read_image(str(path)).shape == picture.shape


def test_palette_mask_means_indices_or_colours(tmp_path):
    indices = np.random.default_rng(0).integers(0, 3, (9, 7), dtype=np.uint8)
    colours = np.array([[1, 2, 3], [200, 100, 50], [0, 255, 0]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.ravel().tolist())
    image.save(tmp_path / 'a.png')
    assert (read_mask(str(tmp_path / 'a.png')) == indices).all()
    assert (read_mask(str(tmp_path / 'a.png'), colours=True) == colours[indices]).all()


def test_bilevel_mask_is_0_and_255(tmp_path):
    bits = np.random.default_rng(0).random((9, 7)) > 0.5
    Image.fromarray(bits).save(tmp_path / 'a.png')
    assert (read_mask(str(tmp_path / 'a.png')) == np.where(bits, 255, 0)).all()


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('channels', [1, 2, 3, 5])
def test_npy_raster_round_trip(tmp_path, dtype, channels):
    raster = (np.random.default_rng(0).random((5, 6, channels)) * 200 - 50).astype(dtype)
    np.save(tmp_path / 'a.npy', raster)
    read, nodata = read_raster(str(tmp_path / 'a.npy'))
    assert nodata is None and read.dtype == raster.dtype and (read == raster).all()


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
def test_single_band_tiff_round_trip(tmp_path, dtype):
    raster = (np.random.default_rng(0).random((5, 6)) * 200 - 50).astype(dtype)
    read, _ = read_raster(write(tmp_path / 'a.tif', raster))
    assert read.dtype == raster.dtype and (read[..., 0] == raster).all()


def test_three_band_png_raster_has_the_order_of_the_file(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / 'a.png')
    assert (read_raster(str(tmp_path / 'a.png'))[0] == picture).all()


@pytest.mark.parametrize('content', [np.array(['a', 'b']), np.zeros(4), np.zeros((2, 2), complex)])
def test_npy_of_something_else_is_refused(tmp_path, content):
    np.save(tmp_path / 'a.npy', content)
    with pytest.raises(UserError, match='expected numbers'):
        read_raster(str(tmp_path / 'a.npy'))


def test_npy_of_a_damaged_header_is_named(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.zeros((3, 3)))
    path.write_bytes(path.read_bytes().replace(b'(3, 3)', b'(3, 3 '))
    with pytest.raises(UserError, match='a.npy') as error:
        read_raster(str(path))
    assert says_one_sentence(error, path)


def test_npy_with_python_objects_is_never_loaded(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match='a.npy'):
        read_raster(str(tmp_path / 'a.npy'))


@pytest.mark.parametrize('channels', [2, 3, 4, 6])
def test_geotiff_of_any_bands_with_nodata(tmp_path, channels):
    rasterio = pytest.importorskip('rasterio', reason='reads TIFF files of several bands')
    raster = np.random.default_rng(0).random((channels, 5, 6)).astype(np.float32)
    path = tmp_path / 'a.tif'
    with rasterio.open(path, 'w', driver='GTiff', height=5, width=6, count=channels,
                       dtype='float32', nodata=-9999, photometric='MINISBLACK') as file:
        file.write(raster)
    read, nodata = read_raster(str(path))
    assert nodata == -9999 and (read == raster.transpose(1, 2, 0)).all()


def write_tiff(path, bands, **options):
    """Write bands (C, H, W) with GDAL."""
    rasterio = pytest.importorskip('rasterio')
    count, height, width = bands.shape
    with rasterio.open(path, 'w', 'GTiff', width, height, count, dtype=bands.dtype,
                       **options) as file:
        file.write(bands)
    return str(path)


LAYOUTS = [dict(interleave='band'), dict(compress='zstd'), dict(compress='lerc'),
           dict(compress='lzw', predictor=2, tiled=True, blockxsize=16, blockysize=32),
           dict(interleave='band', compress='deflate', BIGTIFF='YES')]


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('layout', LAYOUTS, ids=str)
@pytest.mark.parametrize('kind', [dict(photometric='RGB', alpha='UNSPECIFIED'),
                                  dict(photometric='MINISBLACK'), dict(photometric='RGB'), None])
def test_tiff_files_of_any_layout_keep_their_bands(tmp_path, picture, layout, kind):
    bands = picture.transpose(2, 0, 1)
    if kind is not None:
        bands = np.concatenate([bands, bands[:1] // 2 + 1])
    path = write_tiff(tmp_path / 'a.tif', bands, **layout, **kind or dict(photometric='RGB'))
    expected = bands.transpose(1, 2, 0)
    assert (read_pixels(path, 'unchanged')[0] == expected).all()
    assert (read_pixels(path)[0] == picture).all()
    assert (read_raster(path)[0] == expected).all()
    assert (read_mask(path) == picture).all()


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('photometric', ['PALETTE', 'MINISWHITE', 'MINISBLACK'])
@pytest.mark.parametrize('bits', [1, 8])
def test_coded_tiff_values_become_what_is_seen(tmp_path, photometric, bits):
    pytest.importorskip('rasterio')
    values = np.random.default_rng(0).integers(0, 2**bits, (9, 14), np.uint8)
    if photometric == 'PALETTE':
        picture = Image.fromarray(values % 2)
        picture.putpalette([9, 8, 7, 200, 100, 50])
        picture.save(tmp_path / 'a.tif', bits=8)
        seen = np.array([[9, 8, 7], [200, 100, 50]], np.uint8)[values % 2]
        assert (read_mask(str(tmp_path / 'a.tif')) == values % 2).all()
        assert (read_mask(str(tmp_path / 'a.tif'), colours=True) == seen).all()
    else:
        options = dict(nbits=bits) if bits < 8 else {}
        write_tiff(tmp_path / 'a.tif', values[None], photometric=photometric, **options)
        grey = values if bits == 8 else 255 * values
        grey = 255 - grey if photometric == 'MINISWHITE' else grey
        seen = np.repeat(grey[..., None], 3, 2)
        assert (read_mask(str(tmp_path / 'a.tif')) == grey).all()
    assert (read_pixels(str(tmp_path / 'a.tif'))[0] == seen).all()


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [1, 3])
def test_more_than_8_bits_are_not_colours(tmp_path, picture, suffix, channels):
    deep = picture[..., :channels].astype(np.uint16) * 201
    path = write(tmp_path / f'deep{suffix}', deep[..., ::-1])
    with pytest.raises(UserError, match=r'deep.*16.*unchanged') as error:
        read_image(path)
    assert says_one_sentence(error, path)
    assert (read_pixels(path, 'unchanged')[0] == deep).all()
    assert (read_raster(path)[0] == deep).all()
    # Neither with alpha.
    path = write(tmp_path / f'alpha{suffix}', np.dstack([*[deep] * (3 // channels), deep[..., :1]]))
    with pytest.raises(UserError, match=r'alpha.*16.*unchanged'):
        read_image(path)
    assert read_pixels(path, 'unchanged')[0].dtype == np.uint16


def zero(content, first, stop):
    """Overwrite a part, given in shares of the length, with zeros."""
    first, stop = int(len(content) * first), int(len(content) * stop)
    return content[:first] + bytes(stop - first) + content[stop:]


@pytest.mark.parametrize('options', [
    dict(quality=70), dict(quality=92, subsampling=0), dict(quality=85, progressive=True),
    dict(quality=85, optimize=True)], ids=str)
@pytest.mark.parametrize('first, stop', [(0.35, 0.6), (0.5, 0.58), (0.8, 0.95)])
def test_jpeg_damaged_in_the_middle_is_named(tmp_path, picture, capfd, options, first, stop):
    buffer = io.BytesIO()
    Image.fromarray(cv2.resize(picture, (300, 220))).save(buffer, 'JPEG', **options)
    path = tmp_path / 'zeroed.jpg'
    path.write_bytes(zero(buffer.getvalue(), first, stop))
    for reader in (read_image, read_raster):
        with pytest.raises(UserError) as error:
            reader(str(path))
        assert says_one_sentence(error, path)
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('padding', [b'\0' * 7, b'\xff' * 3])
def test_padding_before_the_end_of_a_jpeg_is_harmless(tmp_path, picture, capfd, padding):
    whole = cv2.imencode('.jpg', picture)[1].tobytes()
    path = tmp_path / 'a.jpg'
    path.write_bytes(whole[:-2] + padding + whole[-2:])
    assert (read_image(str(path)) == cv2.imdecode(np.frombuffer(whole, np.uint8), 1)).all()
    assert capfd.readouterr() == ('', '')


def test_other_output_on_stderr_passes(capfd):
    from bhvit_seg.datasets.decoder_messages import collect_stderr

    with collect_stderr() as lines:
        os.write(2, b'Corrupt JPEG data: something\nof another thread\n')
    assert lines == ['Corrupt JPEG data: something']
    assert capfd.readouterr().err == 'of another thread\n'


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('layout', [dict(compress='jpeg', photometric='YCBCR'),
                                    dict(compress='deflate', photometric='RGB')], ids=str)
def test_tiff_damaged_in_the_middle_is_named(tmp_path, picture, layout):
    bands = cv2.resize(picture, (256, 208)).transpose(2, 0, 1)
    path = tmp_path / 'zeroed.tif'
    write_tiff(path, bands, tiled=True, blockxsize=64, blockysize=64, **layout)
    assert (np.abs(read_pixels(str(path))[0].astype(int) - bands.transpose(1, 2, 0)) < 90).all()
    path.write_bytes(zero(path.read_bytes(), 0.5, 0.7))
    for reader in READERS:
        with pytest.raises(UserError) as error:
            reader(str(path))
        assert says_one_sentence(error, path)


def save_rotated(path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(path, exif=exif)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_orientation_is_of_colours_alone(tmp_path, picture, suffix):
    save_rotated(tmp_path / f'a{suffix}', picture)
    stored = read_pixels(str(tmp_path / f'a{suffix}'), 'unchanged')[0]
    assert stored.shape == picture.shape
    assert (read_pixels(str(tmp_path / f'a{suffix}'))[0] == np.rot90(stored, -1)).all()


def test_aerial_images_may_have_many_pixels(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    Image.fromarray(picture[..., 0]).save(tmp_path / 'a.png')
    assert (read_mask(str(tmp_path / 'a.png')) == picture[..., 0]).all()
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'int32', 'float32'])
def test_tiff_files_of_one_band_are_read_without_rasterio(tmp_path, monkeypatch, dtype):
    values = (np.random.default_rng(0).random((5, 6)) * 200 - 50).astype(dtype)
    path = write_tiff(tmp_path / 'a.tif', values[None], nodata=7)
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    read, nodata = read_raster(path)
    assert read.dtype == dtype and (read[..., 0] == values).all() and nodata == 7


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('kind', [dict(photometric='RGB', alpha='UNSPECIFIED'),
                                  dict(photometric='RGB', alpha='YES')], ids=str)
def test_what_needs_rasterio_says_so(tmp_path, picture, monkeypatch, kind):
    bands = picture.transpose(2, 0, 1)
    colours = write_tiff(tmp_path / 'three.tif', bands, photometric='RGB', compress='lzw')
    path = write_tiff(tmp_path / 'four.tif', np.concatenate([bands, bands[:1]]), **kind)
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    assert (read_pixels(colours)[0] == picture).all()
    for reader in READERS:
        with pytest.raises(UserError, match=r'four\.tif.*4 bands.*rasterio.*raster\]') as error:
            reader(path)
        assert says_one_sentence(error, path)


@pytest.mark.parametrize('name', ['cv2', 'PIL'])
def test_missing_decoders_are_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, 'bhvit_seg.datasets.image_io')
    with pytest.raises(UserError, match=f'{name}.*pip install'):
        importlib.import_module('bhvit_seg.datasets.image_io')


@pytest.mark.data
def test_real_geotiffs_agree_with_rasterio(data_root):
    rasterio = pytest.importorskip('rasterio')
    paths = [path for path in sorted((data_root / 'geotiff').glob('*.tif'))
             if not path.name.startswith('5b90')]  # JPEG: decoders round differently
    assert paths
    for path in paths:
        with rasterio.open(path) as file:
            bands, valid = file.read().transpose(1, 2, 0), file.dataset_mask() > 0
        assert (read_raster(str(path))[0] == bands).all(), path
        image, gaps = read_pixels(str(path))
        assert (image == bands[..., :3])[valid].all(), path
        if gaps is None:
            assert valid.all(), path
        else:
            assert (gaps == ~valid).all(), path
            assert np.allclose(image[gaps], bands[..., :3][valid].mean(axis=0), atol=0.5), path


@pytest.mark.parametrize('name, options', [
    ('a.webp', {'lossless': True, 'exact': True}), ('a.png', {}), ('a.tif', {}),
    ('grey.tif', {}), ('grey.png', {}), ('extended.webp', {'quality': 100, 'exact': True})])
def test_transparent_pixels_have_no_data_in_any_format(tmp_path, picture, name, options):
    pytest.importorskip('rasterio')
    if name.startswith('grey'):
        picture = np.repeat(picture[..., :1], 3, 2)
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[2:5, 3:9] = 0
    image = Image.fromarray(np.dstack([picture, alpha]))
    (image.convert('LA') if name.startswith('grey') else image).save(tmp_path / name, **options)
    colours, gaps = read_pixels(str(tmp_path / name))
    assert np.array_equal(gaps, alpha == 0) and colours.shape == picture.shape
    if 'quality' not in options:
        assert np.array_equal(colours[~gaps], picture[~gaps])
    image.convert('RGB').save(tmp_path / name, **options)
    assert read_pixels(str(tmp_path / name))[1] is None


def test_complex_values_are_no_image(tmp_path, picture):
    rasterio = pytest.importorskip('rasterio')
    path = tmp_path / 'radar.tif'
    with rasterio.open(path, 'w', driver='GTiff', height=9, width=8, count=2,
                       dtype='complex64') as dataset:
        dataset.write(np.ones((2, 9, 8), np.complex64))
    with pytest.raises(UserError, match='radar.tif has complex64'):
        read_pixels(str(path), 'unchanged')
