"""Areas on the ellipsoid against integrals and equal-area projections; test_centerlines.py has
lengths."""

import numpy as np
import pytest
import shapely
from raster.layers import blobs, count_regions, draw, read
from raster.rasters import NODATA, write_map
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as warp

from bhvit_seg.errors import UserError
from bhvit_seg.raster.vector.geodesy import Geodesy
from bhvit_seg.raster.vector.vectors import write_vectors


def cell_area(south: float, north: float, width: float) -> float:
    """Return the area between parallels and over some longitude (degrees) on WGS 84."""
    latitude, step = np.linspace(*np.radians([south, north]), 20_001, retstep=True)
    latitude = latitude[:-1] + step / 2
    a, e2 = 6378137.0, 0.00669437999014
    density = a**2 * (1 - e2) * np.cos(latitude) / (1 - e2 * np.sin(latitude)**2)**2
    return float(density.sum() * step * np.radians(width))


def test_geographic_areas_are_those_of_the_ellipsoid(tmp_path):
    ids = np.array([[0, 0, 1], [0, 2, 1], [2, 2, NODATA]])
    transform = Affine(0.25, 0, 10, 0, -0.5, 61)
    labels = write_map(tmp_path / 'map.tif', ids, crs='EPSG:4326', transform=transform)
    areas = write_vectors(labels, tmp_path / 'map.gpkg')['areas']
    rows = [cell_area(61 - 0.5 * (row + 1), 61 - 0.5 * row, 0.25) for row in range(3)]
    assert areas['ground'] == pytest.approx(2 * rows[0] + rows[1], rel=1e-8)
    assert areas['road'] == pytest.approx(rows[0] + rows[1], rel=1e-8)
    assert areas['water'] == pytest.approx(rows[1] + 2 * rows[2], rel=1e-8)


@pytest.mark.parametrize('crs, pixel, area', [
    ('EPSG:2263', 2, 4 * (1200 / 3937)**2),  # feet
    ('LOCAL_CS["site",UNIT["metre",1],AXIS["East",EAST],AXIS["North",NORTH]]', 3, 9)])
def test_areas_of_maps_in_other_units_are_in_metres(tmp_path, crs, pixel, area):
    labels = write_map(tmp_path / 'map.tif', np.zeros((10, 20)), crs=crs,
                       transform=Affine(pixel, 0, 1e6, 0, -pixel, 2e5))
    areas = write_vectors(labels, tmp_path / 'map.gpkg')['areas']
    assert areas['ground'] == pytest.approx(200 * area, rel=1e-9)


@pytest.mark.parametrize('crs, pixel, middle', [
    # The pole in the middle of a pixel's corner, of a pixel, and off the raster.
    ('EPSG:3031', 9_000, (0, 0)), ('EPSG:3995', 700, (350, 350)),
    ('EPSG:3976', 400, (0, -2.1e6)),
    # Longitude jumps from 180 to -180 degrees along these rasters.
    ('EPSG:3413', 2_000, (-9e5, 9e5)), ('EPSG:5936', 300, (0, 4e5)), ('EPSG:3575', 900, (0, 9e5)),
    ('EPSG:3832', 250, (3339584.7, 4e6)), ('EPSG:3994', 800, (8.9e6, -3.1e6)),
    ('EPSG:4326', 0.01, (180, -62))])
def test_areas_where_longitude_jumps(tmp_path, crs, pixel, middle):
    """Against those in an equal-area projection around the raster's middle."""
    ids = blobs(60, 80, seed=4)
    transform = Affine(pixel, 0, middle[0] - 40 * pixel, 0, -pixel, middle[1] + 30 * pixel)
    labels, out = write_map(tmp_path / 'map.tif', ids, crs=crs, transform=transform), (
        tmp_path / 'map.fgb')
    write_vectors(labels, out)
    _, polygons, fields = read(out)
    assert len(polygons) == count_regions(ids) and shapely.is_valid(polygons).all()
    np.testing.assert_array_equal(draw(polygons, fields['class_id'], ids.shape, transform), ids)
    (longitude,), (latitude,) = warp(crs, 'EPSG:4326', [middle[0]], [middle[1]])
    equal_area = f'+proj=laea +lon_0={longitude} +lat_0={latitude} +ellps=WGS84'
    moved = shapely.transform(
        shapely.segmentize(polygons, pixel),
        lambda points: np.transpose(warp(crs, equal_area, *points.T)))
    truth = shapely.area(moved)
    # Of the map, where that is true within 1 %.
    tolerance = 0.01 if np.allclose(fields['area_m2'], shapely.area(polygons)) else 1e-4
    np.testing.assert_allclose(fields['area_m2'], truth, rtol=tolerance)

    smallest = np.quantile(fields['area_m2'], 0.7)
    write_vectors(labels, out, min_area=smallest, simplify=3 * np.sqrt(truth.sum() / ids.size))
    _, simple, fields = read(out)
    assert 1 < len(simple) < 0.4 * len(polygons) and fields['area_m2'].min() >= smallest
    assert fields['area_m2'].sum() == pytest.approx(truth.sum(), rel=tolerance)
    assert shapely.is_valid(simple).all()
    before = shapely.get_num_coordinates(shapely.coverage_union_all(polygons))
    assert shapely.get_num_coordinates(simple).sum() < before + 0.4 * (
        shapely.get_num_coordinates(polygons).sum())


# Of the whole ellipsoid, and within half of the radius of a disc that shows half of the Moon.
@pytest.mark.parametrize('crs, transform, shape, radius, expected', [
    ('+proj=moll +datum=WGS84', Affine(1e5, 0, -1.81e7, 0, -1e5, 9.1e6), (182, 362), np.inf,
     5.10066e14),
    ('+proj=igh +datum=WGS84', Affine(1e5, 0, -2.01e7, 0, -1e5, 8.7e6), (174, 402), np.inf,
     5.10066e14),
    ('+proj=ortho +lat_0=90 +R=1737400', Affine(2e4, 0, -1.8e6, 0, -2e4, 1.8e6), (180, 180),
     868_700, 2 * np.pi * 1737400**2 * (1 - 0.75**0.5))])
def test_areas_of_rasters_that_reach_beyond_the_globe(crs, transform, shape, radius, expected):
    geodesy = Geodesy(CRS.from_string(crs), transform, shape)
    areas = geodesy.pixel_areas(range(shape[0]), shape[1])
    assert areas.shape == shape and np.isfinite(areas).all() and areas[0, 0] == 0
    rows, columns = np.indices(shape) + 0.5
    x, y = transform.a * columns + transform.c, transform.e * rows + transform.f
    assert areas[np.hypot(x, y) < radius].sum() == pytest.approx(expected, rel=0.01)
    points = np.array([[shape[1] * 0.5, shape[0] * 0.4], [0.5, 0.5]])
    assert geodesy.areas_at(points) == pytest.approx(
        [areas[int(shape[0] * 0.4), int(shape[1] * 0.5)], 0], rel=0.02)


@pytest.mark.parametrize('crs, transform, expected', [
    # On the Moon's sphere, and on Mars's ellipsoid of 3396.19 and 3376.2 km.
    ('IAU_2015:30100', Affine(0.5, 0, 20, 0, -0.5, 35),
     1_737_400**2 * np.radians(10) * (np.sin(np.radians(35)) - np.sin(np.radians(30)))),
    ('+proj=stere +lat_0=90 +a=3396190 +b=3376200', Affine(1000, 0, -1e4, 0, -1000, 5e3), 200e6),
    ('+proj=longlat +a=3396190 +b=3376200', Affine(0.01, 0, 7, 0, -0.01, 0.05),
     np.radians(0.2) * np.radians(0.1) * 3376200**2)])
def test_other_bodies_are_measured_on_their_own_ellipsoid(tmp_path, crs, transform, expected):
    labels = write_map(tmp_path / 'map.tif', np.zeros((10, 20)), crs=crs, transform=transform)
    areas = write_vectors(labels, tmp_path / 'map.gpkg')['areas']
    assert areas['ground'] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(UserError, match='map.tif .* a CRS of the Earth.* .gpkg or .fgb'):
        write_vectors(labels, tmp_path / 'map.geojson')
