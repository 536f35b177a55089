"""Files are read as they are, and a damaged one is named."""

import io
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from raster.rasters import write_raster

from bhvit_seg.datasets.image_io import read_image, read_mask, read_pixels, read_raster
from bhvit_seg.errors import UserError

READERS = [read_image, read_mask, read_raster]
pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')  # rasters without a place on Earth


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (61, 47, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 2)


def write(path, array):
    assert cv2.imwrite(str(path), array)
    return str(path)


def write_tiff(path, bands, **options):
    return str(write_raster(path, bands, **options))


def is_refused(path, readers=READERS, match=''):
    """Whether every reader says in one sentence what is wrong with the file."""
    for reader in readers:
        with pytest.raises(UserError, match=match) as error:
            reader(str(path))
        assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_order_of_channels(tmp_path, picture):
    path = str(tmp_path / 'a.png')
    Image.fromarray(picture).save(path)
    assert (read_image(path) == picture[..., ::-1]).all()
    assert (read_raster(path)[0] == picture).all()
    path = write(tmp_path / 'grey.png', picture[..., 0])
    assert (read_image(path) == picture[..., :1]).all()
    assert read_image(path).shape == (61, 47, 3)
    assert read_image(path, 'unchanged').shape == (61, 47, 1)


# ------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif'])
def test_truncated_file_is_named(tmp_path, picture, capfd, suffix):
    path = tmp_path / f'cut{suffix}'
    write(path, picture)
    content = path.read_bytes()
    for kept in (0.3, 0.9, 0.99):
        path.write_bytes(content[:int(len(content) * kept)])
        is_refused(path)
    if suffix == '.png':  # a wrong checksum of a chunk
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1:])
        is_refused(path, [read_image])
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('content, says', [(None, 'does not exist'), (b'', 'empty'),
                                           (b'no image at all', 'decoded')])
def test_missing_empty_and_foreign_files_are_named(tmp_path, content, says):
    if content is not None:
        (tmp_path / 'a.png').write_bytes(content)
    is_refused(tmp_path / 'a.png', match=says)


def test_whole_jpeg_may_have_more_than_its_picture(tmp_path, picture, capfd):
    path = tmp_path / 'a.jpg'
    whole = cv2.imencode('.jpg', picture)[1].tobytes()
    progressive = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    exif = b'Exif\0\0' + bytes(64) + cv2.imencode('.jpg', picture[::4, ::4])[1].tobytes()
    thumbnail = whole[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + whole[2:]
    for content in (whole + bytes(64), progressive + bytes(64), thumbnail,
                    whole[:-2] + bytes(70) + whole[-2:], whole[:-2] + b'\xff' * 3 + whole[-2:]):
        path.write_bytes(content)
        truth = cv2.imdecode(np.frombuffer(whole, np.uint8), 1)
        assert content.startswith(progressive) or (read_image(str(path)) == truth).all()
        assert read_image(str(path)).shape == picture.shape
    assert capfd.readouterr() == ('', '')
    path.write_bytes(thumbnail[:-200])
    is_refused(path, [read_image], 'truncated')


def zero(content, first, stop):
    """Overwrite a part, given in shares of the length, with zeros."""
    first, stop = int(len(content) * first), int(len(content) * stop)
    return content[:first] + bytes(stop - first) + content[stop:]


@pytest.mark.parametrize('options', [
    dict(quality=70), dict(quality=92, subsampling=0), dict(quality=85, progressive=True),
    dict(quality=85, optimize=True)], ids=str)
def test_jpeg_damaged_in_the_middle_is_named(tmp_path, picture, capfd, options):
    buffer = io.BytesIO()
    Image.fromarray(cv2.resize(picture, (300, 220))).save(buffer, 'JPEG', **options)
    content = buffer.getvalue()
    parts = [(0.35, 0.6), (0.5, 0.58), (0.8, 0.95)]
    if not options.keys() & {'progressive', 'optimize'}:  # few bytes: the codes may fit again
        parts += [(first, first + 50 / len(content)) for first in np.linspace(0.2, 0.9, 15)]
    for first, stop in parts:
        (tmp_path / 'zeroed.jpg').write_bytes(zero(content, first, stop))
        is_refused(tmp_path / 'zeroed.jpg', [read_image, read_raster])
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('options', [dict(), dict(optimize=True), dict(progressive=True)], ids=str)
def test_jpeg_of_one_colour_is_whole_though_it_is_all_zeros(tmp_path, options):
    for shape in ((400, 400), (400, 400, 3)):
        plain = np.full(shape, 90, np.uint8)
        Image.fromarray(plain).save(tmp_path / 'a.jpg', **options)
        assert (read_image(str(tmp_path / 'a.jpg')) == plain.reshape(400, 400, -1)).all()


@pytest.mark.parametrize('layout', [dict(compress='jpeg', photometric='YCBCR'),
                                    dict(compress='deflate', photometric='RGB')], ids=str)
def test_tiff_damaged_in_the_middle_is_named(tmp_path, picture, layout):
    bands = cv2.resize(picture, (256, 208)).transpose(2, 0, 1)
    path = tmp_path / 'zeroed.tif'
    write_tiff(path, bands, tiled=True, blockxsize=64, blockysize=64, **layout)
    assert (np.abs(read_pixels(str(path))[0].astype(int) - bands.transpose(1, 2, 0)) < 90).all()
    path.write_bytes(zero(path.read_bytes(), 0.5, 0.7))
    is_refused(path)


# -------------------------------------------------------------------------- rasters and masks


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('channels', [1, 5])
def test_rasters_keep_values_dtype_and_nodata(tmp_path, dtype, channels):
    raster = (np.random.default_rng(0).random((5, 6, channels)) * 200 - 50).astype(dtype)
    np.save(tmp_path / 'a.npy', raster)
    tiff = write_tiff(tmp_path / 'a.tif', raster.transpose(2, 0, 1), nodata=7,
                      photometric='MINISBLACK')
    for path, declared in ((tmp_path / 'a.npy', None), (tiff, 7)):
        read, nodata = read_raster(str(path))
        assert nodata == declared and read.dtype == raster.dtype and (read == raster).all()


@pytest.mark.parametrize('content', [
    np.array(['a', 'b']), np.zeros(4), np.zeros((2, 2), complex), np.array([{}], dtype=object),
    'damaged'])
def test_npy_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / 'a.npy'
    np.save(path, np.zeros((3, 3)) if isinstance(content, str) else content, allow_pickle=True)
    if isinstance(content, str):
        path.write_bytes(path.read_bytes().replace(b'(3, 3)', b'(3, 3 '))
    is_refused(path, [read_raster])


def test_palette_mask_means_indices_or_colours(tmp_path):
    indices = np.random.default_rng(0).integers(0, 3, (9, 7), dtype=np.uint8)
    colours = np.array([[1, 2, 3], [200, 100, 50], [0, 255, 0]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.ravel().tolist())
    for name in ('a.png', 'a.tif'):
        image.save(tmp_path / name)
        assert (read_mask(str(tmp_path / name)) == indices).all()
        assert (read_mask(str(tmp_path / name), colours=True) == colours[indices]).all()
        assert (read_pixels(str(tmp_path / name))[0] == colours[indices]).all()


def test_aerial_images_may_have_many_pixels(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    path = write(tmp_path / 'a.png', picture[..., 0])
    assert (read_mask(path) == picture[..., 0]).all() and Image.MAX_IMAGE_PIXELS == 100


# -------------------------------------------------------------------------------------- images

LAYOUTS = [dict(interleave='band'), dict(compress='zstd'), dict(compress='lerc'),
           dict(compress='lzw', predictor=2, tiled=True, blockxsize=16, blockysize=32),
           dict(interleave='band', compress='deflate', BIGTIFF='YES')]


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
    assert (read_image(path, 'unchanged')[..., :3] == picture[..., ::-1]).all()
    assert (read_pixels(path)[0] == picture).all()
    assert (read_raster(path)[0] == expected).all()
    assert (read_mask(path) == picture).all()


@pytest.mark.parametrize('photometric', ['MINISWHITE', 'MINISBLACK'])
@pytest.mark.parametrize('bits', [1, 8])
def test_coded_tiff_values_become_what_is_seen(tmp_path, photometric, bits):
    values = np.random.default_rng(0).integers(0, 2**bits, (9, 14), np.uint8)
    path = write_tiff(tmp_path / 'a.tif', values[None], photometric=photometric,
                      **dict(nbits=bits) if bits < 8 else {})
    grey = values * (1 if bits == 8 else 255)
    grey = 255 - grey if photometric == 'MINISWHITE' else grey
    assert (read_mask(path) == grey).all()
    assert (read_pixels(path)[0] == grey[..., None]).all()


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [1, 3])
def test_more_than_8_bits_are_not_colours(tmp_path, picture, suffix, channels):
    deep = picture[..., :channels].astype(np.uint16) * 201
    path = write(tmp_path / f'deep{suffix}', deep[..., ::-1])
    is_refused(path, [read_image], r'deep.*16.*unchanged')
    assert (read_pixels(path, 'unchanged')[0] == deep).all()
    assert (read_raster(path)[0] == deep).all()
    # Neither with alpha.
    path = write(tmp_path / f'alpha{suffix}', np.dstack([*[deep] * (3 // channels), deep[..., :1]]))
    is_refused(path, [read_image], r'alpha.*16.*unchanged')
    assert read_pixels(path, 'unchanged')[0].dtype == np.uint16


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_orientation_is_of_colours_alone(tmp_path, picture, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / f'a{suffix}')
    Image.fromarray(picture).save(path, exif=exif)
    stored = read_pixels(path, 'unchanged')[0]
    assert stored.shape == picture.shape
    assert (read_pixels(path)[0] == np.rot90(stored, -1)).all()


@pytest.mark.parametrize('name, mode, options', [
    ('a.webp', 'RGBA', dict(lossless=True, exact=True)), ('a.png', 'RGBA', {}),
    ('a.tif', 'RGBA', {}), ('grey.tif', 'LA', {}), ('grey.png', 'LA', {}),
    ('extended.webp', 'RGBA', dict(quality=100, exact=True)),
    ('rotated.png', 'RGBA', dict(exif=True)), ('colour.png', 'RGB', dict(transparency=(0, 0, 0))),
    ('grey.png', 'L', dict(transparency=0)), ('palette.png', 'P', dict(transparency=0))])
def test_transparent_pixels_have_no_data_in_any_format(tmp_path, picture, name, mode, options):
    pytest.importorskip('rasterio')
    gaps = np.zeros(picture.shape[:2], bool)
    gaps[2:5, 3:9] = True
    picture = np.maximum(picture, 1)
    if mode in ('L', 'LA', 'P'):
        picture = np.repeat(picture[..., :1], 3, 2)
    if 'transparency' in options:
        picture[gaps] = 0
    image = Image.fromarray(np.dstack([picture, np.where(gaps, 0, 255).astype(np.uint8)]))
    image = image.convert('L' if mode == 'P' else mode)
    if mode == 'P':
        image.putpalette([*range(256)] * 3)
    if 'exif' in options:
        options = dict(exif=Image.Exif())
        options['exif'][0x0112] = 6
        gaps = np.rot90(gaps, -1)
    image.save(tmp_path / name, **options)
    colours, found = read_pixels(str(tmp_path / name))
    truth = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)).convert('RGB'))
    assert (found == gaps).all() and (colours[~gaps] == truth[~gaps]).all()
    assert (colours[gaps] == truth[~gaps].mean(0).round()).all()
    image.convert('RGB').save(tmp_path / name, **{'lossless': True} if 'webp' in name else {})
    assert read_pixels(str(tmp_path / name))[1] is None


@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
@pytest.mark.parametrize('case', ['declared', 'alpha', 'fourth band', 'nothing'])
def test_where_a_geotiff_has_no_data(tmp_path, case, color_type):
    bands = np.random.default_rng(0).integers(
        1, 255, (4 if case in ('alpha', 'fourth band') else 3, 6, 5), np.uint8)
    gaps = np.zeros((6, 5), bool)
    if case == 'declared':
        bands[:, :2] = bands[0, 3] = 0  # one band alone is a colour
        gaps[:2] = True
    elif len(bands) == 4:
        bands[3, :, 4] = 0
        gaps[:, 4] = case == 'alpha' and color_type == 'color'  # as a channel it may be infrared
    options = dict(alpha='YES' if case == 'alpha' else 'UNSPECIFIED') if len(bands) == 4 else {}
    path = write_tiff(tmp_path / 'a.tif', bands, nodata=0 if case == 'declared' else None,
                      photometric='RGB', **options)
    image, found = read_pixels(path, color_type)
    expected = bands[:3].transpose(1, 2, 0).copy()
    expected[gaps] = expected[~gaps].mean(0).round()
    assert (image[..., :3] == expected).all()
    assert found is None if not gaps.any() else (found == gaps).all()


def test_values_that_mean_no_data_are_replaced(tmp_path):
    bands = np.random.default_rng(0).random((5, 6, 5)).astype(np.float32)
    bands[2, 1], bands[0, 4, 4], bands[:, 0, 0] = np.nan, np.inf, -9999
    expected = np.zeros((6, 5), bool)
    expected[1] = expected[4, 4] = expected[0, 0] = True
    image, gaps = read_pixels(write_tiff(tmp_path / 'a.tif', bands, nodata=-9999), 'unchanged')
    assert (gaps == expected).all()
    mean = bands.transpose(1, 2, 0)[~gaps].mean(0, dtype=np.float64)
    np.testing.assert_allclose(image[gaps], np.broadcast_to(mean, (7, 5)), rtol=1e-6)
    path = write(tmp_path / 'empty.png', np.full((6, 5, 4), (9, 9, 9, 0), np.uint8))
    image, gaps = read_pixels(path)
    assert gaps.all() and not image.any()


# ---------------------------------------------------------------------------- missing packages


def test_tiff_without_rasterio_is_named(tmp_path, picture, monkeypatch):
    path = write(tmp_path / 'a.tif', picture)
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    is_refused(path, match='rasterio.*pip install')


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
        assert valid.all() if gaps is None else (gaps == ~valid).all(), path
