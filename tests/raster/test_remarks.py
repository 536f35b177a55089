"""What is said of a raster before it is mapped."""

import numpy as np
import pytest
import rasterio
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
