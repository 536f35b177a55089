"""What is said of a raster before it is mapped."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from raster.rasters import write_raster
from rasterio.enums import ColorInterp

from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.reading import RasterSource
from bhvit_seg.raster.remarks import find_remarks


def remarks_on(path, channels=3, **options) -> list[str]:
    with RasterSource(path, ReadOptions(channels, (0,) * channels, **options)) as source:
        return list(find_remarks(source))


@pytest.mark.parametrize('distance, told', [
    (None, False), (0.5, False), (0.7, False), (0.8, True), (0.34, False), (0.3, True)])
def test_pixels_of_another_size_than_the_model_s(tmp_path, distance, told):
    path = write_raster(tmp_path / 'a.tif', noise(), crs='EPSG:32632',
                        transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6))
    with RasterSource(path, ReadOptions()) as source:
        found = list(find_remarks(source, distance))
    assert len(found) == told
    if told:
        assert str(path) in found[0] and ' 0.5 m' in found[0] and f' {distance} m' in found[0]


def noise(bands=3, size=(150, 170), dtype='uint8') -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (bands, *size)).astype(dtype)


@pytest.mark.parametrize('tags, order', [
    (('blue', 'green', 'red'), '3 2 1'), (('red', 'green', 'blue'), None),
    (('gray', 'undefined', 'undefined'), None), (('undefined', 'red', 'green', 'blue'), '2 3 4'),
    (('blue', 'green', 'red', 'alpha'), '3 2 1'), (('green', 'red', 'undefined'), None)])
def test_bands_in_another_order_than_red_green_blue(tmp_path, tags, order):
    path = write_raster(tmp_path / 'a.tif', noise(len(tags)), photometric='minisblack',
                        colorinterp=[getattr(ColorInterp, tag) for tag in tags])
    found = remarks_on(path)
    assert len(found) == (order is not None)
    if order:
        assert f'--bands {order} ' in found[0] and str(path) in found[0]
        assert not remarks_on(path, bands=tuple(map(int, order.split())))


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'webp'])
def test_an_orientation_is_told(tmp_path, suffix):
    for orientation, count in ((1, 0), (3, 1), (6, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f'{orientation}.{suffix}'
        Image.fromarray(noise().transpose(1, 2, 0)).save(path, exif=exif)
        found = remarks_on(path)
        assert len(found) == count
        assert not found or f'{path} has the EXIF orientation {orientation}' in found[0]


@pytest.mark.parametrize('dtype, scale, value_range, told', [
    ('float32', 1 / 255, (0, 255), True), ('float32', 1 / 255, (0, 1), False),
    ('uint16', 1, (0, 65535), True), ('uint16', 257, (0, 65535), False),
    ('uint16', 40, (0, 255), False), ('int16', 100, (-30000, -20000), True)])
def test_values_that_the_range_makes_one_grey(tmp_path, dtype, scale, value_range, told):
    bands = (noise(dtype='float64') * scale).astype(dtype)
    path = write_raster(tmp_path / 'a.tif', bands)
    found = remarks_on(path, value_range=value_range)
    assert len(found) == told
    if told:
        assert f'--value-range {value_range[0]:g} {value_range[1]:g}' in found[0]
    assert not remarks_on(path, value_range=None, eight_bit=False)


@pytest.mark.parametrize('dtype, value, corner, options, told', [
    ('uint8', 0, (slice(0, 30), slice(0, 90)), {}, 'black in its upper left corner'),
    ('uint8', 255, (slice(-30, None), slice(None)), {},
     'white in its lower left and lower right corner'),
    ('uint8', 0, (slice(0, 30), slice(0, 90)), {'border_nodata': 'auto'}, None),
    ('uint8', 0, (slice(0, 30), slice(0, 90)), {'nodata': 0}, None),
    ('uint8', 0, (slice(40, 90), slice(40, 150)), {}, None),
    ('uint8', 9, (slice(0, 30), slice(0, 90)), {}, None),
    ('uint16', 0, (slice(0, 30), slice(-90, None)), {'value_range': (0, 255)},
     'black in its upper right corner')])
def test_an_undeclared_border_is_told(tmp_path, dtype, value, corner, options, told):
    bands = noise(dtype=dtype)
    bands[(slice(None), *corner)] = value
    path = write_raster(tmp_path / 'a.tif', bands)
    found = remarks_on(path, **options)
    assert len(found) == (told is not None)
    assert not told or f'{path} is {told} ' in found[0] and '--border-nodata' in found[0]


def test_values_that_do_not_differ_say_nothing(tmp_path):
    bands = np.zeros((3, 20, 500), np.float32)
    assert not remarks_on(write_raster(tmp_path / 'flat.tif', bands), value_range=(0, 255))
    bands[:, :, :480] = np.nan
    assert not remarks_on(write_raster(tmp_path / 'empty.tif', bands), value_range=(0, 255))
