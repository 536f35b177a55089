import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raster.rasters import write_raster
from rasterio.enums import ColorInterp
from rasterio.shutil import copy
from rasterio.transform import Affine

from bhvit_seg.errors import UserError
from bhvit_seg.inference.windows import Window
from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.reading import RasterSource

FILL = (7.0, 8.4, 250.0)
HIGH, WIDE = 70, 83
# Rotated, not square.
PLACE = Affine(0.5, 0.1, 400_000, 0.2, -0.4, 5_000_000)


def write(path: Path, bands, colours=(), mask=None, **profile) -> Path:
    write_raster(path, bands, colorinterp=[getattr(ColorInterp, name) for name in colours],
                 **{'crs': 'EPSG:32750', 'transform': PLACE, **profile})
    if mask is not None:
        with rasterio.open(path, 'r+') as dataset:
            dataset.write_mask(mask)
    return path


def noise(bands=3, dtype='uint8', seed=0, size=(HIGH, WIDE)) -> np.ndarray:
    values = np.random.default_rng(seed).integers(1, 250, (bands, *size))
    return values.astype(dtype)


def options(**given) -> ReadOptions:
    return ReadOptions(**{'channels': 3, 'fill': FILL, **given})


def read_all(path, **given) -> tuple[np.ndarray, np.ndarray]:
    with RasterSource(path, options(**given)) as source:
        return source.read(Window(0, 0, source.height, source.width))


def refusal(path, **given) -> str:
    with pytest.raises(UserError) as error:
        read_all(path, **given)
    sentence = str(error.value)
    assert '\n' not in sentence
    return sentence


def expected(bands, valid, fill=FILL) -> np.ndarray:
    pixels = np.moveaxis(bands, 0, 2).copy()
    pixels[~valid] = np.rint(fill) if bands.dtype == np.uint8 else fill
    return pixels


def as_vrt(path, bands):
    return Path(copy(write(path.with_suffix('.src.tif'), bands), path, driver='VRT') or path)


FILES = {
    'strips.tif': dict(blockysize=4),
    'tiles.tif': dict(tiled=True, blockxsize=16, blockysize=32, compress='deflate'),
    'bands.tif': dict(tiled=True, blockxsize=16, blockysize=16, interleave='band',
                      compress='lzw'),
    'cog.tif': dict(driver='COG', blocksize=128, compress='deflate'),
    'lossless.jp2': dict(driver='JP2OpenJPEG', QUALITY=100, REVERSIBLE='YES'),
    'plain.png': dict(driver='PNG', crs=None, transform=None),
    'mosaic.vrt': None,
}


@pytest.mark.parametrize('name', FILES)
def test_every_format_gives_its_pixels_by_windows(tmp_path, name):
    bands = noise()
    path = tmp_path / name
    if FILES[name] is None:
        as_vrt(path, bands)
    else:
        write(path, bands, **FILES[name])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        source = RasterSource(path, options())
        for window in (Window(0, 0, HIGH, WIDE), Window(13, 5, 40, 77), Window(69, 82, 1, 1)):
            pixels, valid = source.read(window)
            truth = bands[:, window.top:window.bottom, window.left:window.right]
            np.testing.assert_array_equal(pixels, np.moveaxis(truth, 0, 2))
            assert pixels.dtype == np.uint8 and valid.dtype == bool and valid.all()
            assert pixels.flags.c_contiguous and valid.shape == pixels.shape[:2]
    assert not source.has_nodata
    if name == 'plain.png':
        assert source.crs is None and source.transform == Affine.identity()
    else:
        assert source.crs.to_epsg() == 32750 and source.transform == PLACE


@pytest.fixture(scope='module')
def holed(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """An RGBA raster in tiles, with its pixels as the model sees them and where it is valid."""
    bands = noise(4)
    bands[3] = np.where(np.random.default_rng(1).random((HIGH, WIDE)) < 0.3, 0, 255)
    path = write(tmp_path_factory.mktemp('holed') / 'rgba.tif', bands, tiled=True, blockxsize=16,
                 blockysize=16, colours=('red', 'green', 'blue', 'alpha'))
    valid = bands[3] > 0
    return path, expected(bands[:3], valid), valid


@given(top=st.integers(-90, 90), left=st.integers(-90, 90), height=st.integers(1, 120),
       width=st.integers(1, 120))
@settings(max_examples=200, deadline=None)
def test_any_window_is_a_slice_of_the_padded_whole(holed, top, left, height, width):
    path, pixels, valid = holed
    room = 220
    padded = np.pad(pixels, ((room, room), (room, room), (0, 0)), mode='edge')
    known = np.pad(valid, room)
    part = (slice(top + room, top + room + height), slice(left + room, left + room + width))
    with RasterSource(path, options()) as source:
        read, read_valid = source.read(Window(top, left, height, width))
    np.testing.assert_array_equal(read, padded[part])
    np.testing.assert_array_equal(read_valid, known[part])


@pytest.mark.parametrize('dtype', ['uint16', 'int16', 'int32', 'float32', 'float64'])
def test_other_types_are_read_as_they_are_or_scaled(tmp_path, dtype):
    bands = (noise(dtype='int64') * 11).astype(dtype)
    path = write(tmp_path / 'deep.tif', bands)
    pixels, valid = read_all(path, eight_bit=False)
    assert pixels.dtype == np.float32 and valid.all()
    np.testing.assert_array_equal(pixels, np.moveaxis(bands, 0, 2).astype(np.float32))

    pixels, _ = read_all(path, value_range=(100, 2000))
    truth = np.clip((np.moveaxis(bands, 0, 2).astype(np.float64) - 100) / 1900 * 255, 0, 255)
    assert pixels.dtype == np.float32 and truth.min() == 0 and truth.max() == 255
    np.testing.assert_allclose(pixels, truth, atol=1e-4)

    sentence = refusal(path)
    assert dtype in sentence and '--value-range' in sentence


def test_nodata_is_where_all_selected_bands_have_it(tmp_path):
    bands = noise(4)
    bands[:, :9, :5] = 0
    bands[:2, 20:30] = 0
    bands[3, 40:50] = 0
    path = write(tmp_path / 'nodata.tif', bands, nodata=0, photometric='minisblack',
                 colours=('gray', 'undefined', 'undefined', 'undefined'))
    valid = bands[:3].any(axis=0)
    pixels, found = read_all(path)
    np.testing.assert_array_equal(found, valid)
    np.testing.assert_array_equal(pixels, expected(bands[:3], valid))
    assert (~read_all(path, bands=(1, 2, 2))[1]).sum() == 9 * 5 + 10 * WIDE


def test_nodata_given_overrides_what_is_declared(tmp_path):
    bands = noise()
    bands[:, :9] = 0
    bands[:, 9:12] = 255
    path = write(tmp_path / 'nodata.tif', bands, nodata=0)
    assert np.flatnonzero(~read_all(path, nodata=255)[1][:, 0]).tolist() == [9, 10, 11]
    for nothing in (math.nan, -9999, 0.5, 300, math.inf):
        assert read_all(path, nodata=nothing)[1].all()


@pytest.mark.parametrize('dtype, nodata', [('float32', -3.4028234663852886e38),
                                           ('float32', -9999.1), ('float64', 0.1),
                                           ('int16', -32768), ('uint16', 65535)])
def test_nodata_of_every_type_is_met_exactly(tmp_path, dtype, nodata):
    bands = noise(dtype=dtype)
    bands[:, 4:8, 4:8] = np.array(nodata, dtype)
    path = write(tmp_path / 'a.tif', bands, nodata=nodata)
    pixels, valid = read_all(path, eight_bit=False)
    assert (~valid).sum() == 16 and not valid[4:8, 4:8].any()
    np.testing.assert_array_equal(pixels[4:8, 4:8], np.broadcast_to(np.float32(FILL), (4, 4, 3)))


@pytest.mark.parametrize('nodata', [None, math.nan, -9999.0])
@pytest.mark.parametrize('value_range', [None, (0.0, 250.0)])
def test_what_is_not_finite_in_any_band_is_invalid(tmp_path, nodata, value_range):
    bands = noise(dtype='float64')
    bands[0, 3] = np.nan
    bands[1, 5] = np.inf
    bands[2, 7] = -np.inf
    bands[2, 9] = 1e300
    path = write(tmp_path / 'float.tif', bands, nodata=nodata)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pixels, valid = read_all(path, eight_bit=False, value_range=value_range)
    assert np.flatnonzero(~valid.all(axis=1)).tolist() == [3, 5, 7, 9]
    assert np.isfinite(pixels).all()
    assert RasterSource(path, options(eight_bit=False)).has_nodata


def test_an_alpha_band_is_a_mask_unless_it_is_asked_for(holed):
    path, pixels, valid = holed
    assert RasterSource(path, options()).bands == (1, 2, 3)
    with rasterio.open(path) as dataset:
        stored = np.moveaxis(dataset.read(), 0, 2)
    for asked in ({'bands': (1, 2, 3, 4)}, {'alpha': False}):
        with RasterSource(path, ReadOptions(4, (0, 0, 0, 0), **asked)) as source:
            assert source.bands == (1, 2, 3, 4) and not source.has_nodata
            read, all_valid = source.read(Window(0, 0, HIGH, WIDE))
        assert all_valid.all()
        np.testing.assert_array_equal(read, stored)
    assert read_all(path, alpha=False)[1].all()
    sentence = refusal(path, channels=4, fill=(0, 0, 0, 0))
    assert '3 bands besides its alpha band' in sentence and '--bands' in sentence
    assert '--no-alpha' in sentence


@pytest.mark.parametrize('inside', [True, False])
def test_a_mask_of_the_file_is_obeyed(tmp_path, inside):
    bands = noise()
    mask = np.random.default_rng(2).random((HIGH, WIDE)) < 0.8
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        path = write(tmp_path / 'masked.tif', bands, mask=mask)
    assert (tmp_path / 'masked.tif.msk').exists() is not inside
    pixels, valid = read_all(path)
    np.testing.assert_array_equal(valid, mask)
    np.testing.assert_array_equal(pixels, expected(bands, mask))


def test_outside_the_sources_of_a_vrt_there_is_no_data(tmp_path):
    bands = noise()
    source = write(tmp_path / 'tile.tif', bands, nodata=0)
    path = tmp_path / 'mosaic.vrt'
    copy(source, path, driver='VRT')
    text = path.read_text().replace('rasterXSize="83"', 'rasterXSize="100"')
    path.write_text(text)
    with rasterio.open(path) as dataset:
        assert dataset.width == 100
    pixels, valid = read_all(path)
    assert valid[:, :WIDE].all() and not valid[:, WIDE:].any()
    np.testing.assert_array_equal(pixels[:, WIDE:], np.broadcast_to(np.rint(FILL), (HIGH, 17, 3)))


def test_bands_are_read_in_the_order_given(tmp_path):
    bands = noise(5)
    pixels, _ = read_all(write(tmp_path / 'five.tif', bands), bands=(5, 1, 3))
    np.testing.assert_array_equal(pixels, np.moveaxis(bands[[4, 0, 2]], 0, 2))
    grey = write(tmp_path / 'grey.tif', bands[:1])
    pixels, _ = read_all(grey, bands=(1, 1, 1))
    np.testing.assert_array_equal(pixels, np.repeat(bands[0][..., None], 3, axis=2))


def test_too_few_or_wrong_bands_are_refused(tmp_path):
    grey = write(tmp_path / 'grey.tif', noise(1))
    sentence = refusal(grey)
    assert 'has 1 band,' in sentence and 'takes 3' in sentence and '--bands' in sentence
    colour = write(tmp_path / 'colour.tif', noise())
    assert 'band 4' in refusal(colour, bands=(1, 2, 4)) and 'has 3' in refusal(
        colour, bands=(1, 2, 4))
    assert 'band 0' in refusal(colour, bands=(0, 1, 2))
    assert '2 bands' in refusal(colour, bands=(1, 2))


def test_a_colour_table_is_refused(tmp_path):
    path = tmp_path / 'indexed.tif'
    with rasterio.open(write(path, noise(1)), 'r+') as dataset:
        dataset.write_colormap(1, {0: (255, 0, 0, 255)})
    assert 'gdal_translate -expand rgb' in refusal(path)


def test_what_is_no_raster_is_refused(tmp_path):
    text = tmp_path / 'notes.tif'
    text.write_text('no raster')
    assert str(text) in refusal(text) and 'GDAL' in refusal(text)
    missing = tmp_path / 'nowhere.tif'
    assert f'{missing} (no such file)' in refusal(missing)
    assert str(tmp_path) in refusal(tmp_path)
    complex_ = write(tmp_path / 'complex.tif', noise(dtype='complex64'))
    assert 'complex64' in refusal(complex_)


def test_a_raster_without_bands_names_its_parts(tmp_path):
    path = tmp_path / 'parts.gpkg'
    for table in ('first', 'second'):
        write(path, noise(), driver='GPKG', RASTER_TABLE=table, transform=Affine(1, 0, 0, 0, -1, 0),
              APPEND_SUBDATASET='YES', TILE_FORMAT='PNG')
    assert 'has no bands' in refusal(path) and f'GPKG:{path}:first' in refusal(path)
    pixels, _ = read_all(f'GPKG:{path}:first')
    np.testing.assert_array_equal(pixels, np.moveaxis(noise(), 0, 2))


@pytest.mark.parametrize('given, word', [
    (dict(border_nodata='grey'), '--border-nodata grey'),
    (dict(border_tolerance=200), '--border-tolerance 200'),
    (dict(value_range=(0, math.inf)), '--value-range 0 inf')])
def test_options_out_of_range_are_refused(given, word):
    with pytest.raises(UserError, match=word):
        options(**given)


def smooth() -> np.ndarray:
    down, along = np.mgrid[:256, :256]
    return np.stack([down, along, (down + along) // 2]).astype(np.uint8)


def damage(path: Path, row: int, column: int) -> None:
    """Overwrite the middle of a block with zeros."""
    with rasterio.open(path) as dataset:
        place, size = (int(dataset.get_tag_item(f'BLOCK_{what}_{column}_{row}', 'TIFF', bidx=1))
                       for what in ('OFFSET', 'SIZE'))
    content = bytearray(path.read_bytes())
    start = place + size // 4
    content[start:start + size // 2] = bytes(size // 2)
    path.write_bytes(content)


@pytest.mark.parametrize('compress', ['lzw', 'jpeg'])
def test_a_damaged_block_names_the_window(tmp_path, capfd, compress):
    photometric = {'photometric': 'ycbcr'} if compress == 'jpeg' else {}
    path = write(tmp_path / 'damaged.tif', smooth(), tiled=True, blockxsize=64, blockysize=64,
                 compress=compress, **photometric)
    damage(path, 2, 1)
    source = RasterSource(path, options())
    whole = Window(0, 0, 128, 256)
    before = source.read(whole)[0]
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):  # GDAL's cache must not make a damaged block look whole.
            error = str(pool.submit(source.read, Window(100, 60, 40, 20)).exception())
            assert error.startswith(f'{path} cannot be read at rows 100 to 139, columns 60 to 79 (')
            assert '\n' not in error and 'See previous' not in error
    np.testing.assert_array_equal(source.read(whole)[0], before)
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize('layout', [{}, {'progressive': True}, {'restart_marker_rows': 1}])
def test_a_jpeg_zeroed_in_the_middle_names_the_file(tmp_path, capfd, layout):
    """What libjpeg only warns about, of several kinds by the file's layout."""
    path = tmp_path / 'zeroed.jpg'
    Image.fromarray(smooth().transpose(1, 2, 0)).save(path, quality=90, **layout)
    content = path.read_bytes()
    for position in (0.4, 0.55, 0.7):
        at, length = int(position * len(content)), len(content) // 8
        path.write_bytes(content[:at] + bytes(length) + content[at + length:])
        assert f'{path} cannot be read at rows' in refusal(path)
    assert capfd.readouterr().err == ''


def test_a_vanished_source_of_a_vrt_names_the_window(tmp_path):
    path = as_vrt(tmp_path / 'mosaic.vrt', noise())
    (tmp_path / 'mosaic.src.tif').unlink()
    assert 'mosaic.vrt' in refusal(path) and 'mosaic.src.tif' in refusal(path)


def test_what_the_file_says_of_itself_is_kept(tmp_path):
    points = [rasterio.control.GroundControlPoint(row, column, 10 + column, 50 - row, 0)
              for row, column in ((0, 0), (0, WIDE), (HIGH, 0), (HIGH, WIDE))]
    path = write(tmp_path / 'tied.tif', noise(4), crs=None, transform=None)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), (
            rasterio.open(path, 'r+')) as dataset:
        dataset.gcps = points, rasterio.CRS.from_epsg(4326)
    with RasterSource(path, options(bands=(4, 1, 2))) as source:
        assert len(source.gcps[0]) == 4 and source.gcps[1].to_epsg() == 4326
        assert source.rpcs is None and source.block_shape[1] == WIDE
