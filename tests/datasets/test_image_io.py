"""Files are read as they are, and a damaged one is named."""

from __future__ import annotations

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
