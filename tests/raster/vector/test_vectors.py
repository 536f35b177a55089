"""Polygons of label rasters, read back by pyogrio and drawn again by GDAL."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from raster.disks import small_disk
from raster.rasters import NAMES, NODATA, PALETTE, write_map

from bhvit_seg.errors import UserError
from bhvit_seg.raster.vector import features_io
from bhvit_seg.raster.vector.centerlines import write_centerlines
from bhvit_seg.raster.vector.vectors import write_vectors

rasterio = pytest.importorskip('rasterio')
pyogrio = pytest.importorskip('pyogrio')
shapely = pytest.importorskip('shapely')
measure = pytest.importorskip('skimage.measure')

from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.features import rasterize  # noqa: E402
from rasterio.transform import Affine  # noqa: E402
from rasterio.warp import transform as warp  # noqa: E402

UTM = {'crs': 'EPSG:32633', 'transform': Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
SUFFIXES = ('.gpkg', '.geojson', '.fgb')
COLOURS = ['#{:02x}{:02x}{:02x}'.format(*colour) for colour in PALETTE]


def blobs(height: int = 90, width: int = 120, seed: int = 0, scale: int = 6) -> np.ndarray:
    """Class ids 0 to 2 in patches, with some nodata."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (height // scale + 1, width // scale + 1))
    rows = np.arange(height)[:, None] + rng.integers(-2, 3, (height, width))
    columns = np.arange(width) + rng.integers(-2, 3, (height, width))
    ids = coarse[np.clip(rows, 0, None) // scale % len(coarse),
                 np.clip(columns, 0, None) // scale % coarse.shape[1]]
    ids[:9, :15] = NODATA
    return ids


def read(path: Path, layer: str | None = None) -> tuple[dict, np.ndarray, dict[str, np.ndarray]]:
    """Return what a layer says of itself, its geometries and its fields."""
    meta, _, geometries, columns = pyogrio.raw.read(path, layer=layer)
    return meta, shapely.from_wkb(geometries), dict(zip(meta['fields'], columns))


def draw(polygons: np.ndarray, ids: np.ndarray, shape: tuple[int, int],
         transform: Affine) -> np.ndarray:
    """Draw polygons back to a raster of class ids."""
    return rasterize(zip(polygons, ids), out_shape=shape, fill=NODATA, dtype='uint8',
                     transform=transform)


def count_regions(ids: np.ndarray) -> int:
    return int(measure.label(ids, connectivity=1, background=NODATA).max())


def shared_edges(polygons: np.ndarray, ids: np.ndarray) -> float:
    """Return how long the edges are along which polygons of one class touch."""
    one, other = shapely.STRtree(polygons).query(polygons, predicate='intersects')
    same = (one < other) & (ids[one] == ids[other])
    return float(shapely.length(shapely.intersection(polygons[one[same]],
                                                     polygons[other[same]])).sum())


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)),
                         elements=st.sampled_from([0, 1, 2, NODATA])),
       rows=st.integers(1, 12))
def test_any_raster_comes_back(tmp_path, monkeypatch, ids, rows):
    monkeypatch.setattr(features_io, 'PIXELS_IN_STRIP', rows * ids.shape[1])
    labels, out = write_map(tmp_path / 'map.tif', ids, **UTM), tmp_path / 'map.fgb'
    result = write_vectors(labels, out)
    _, polygons, fields = read(out)
    assert len(polygons) == count_regions(ids) == sum(result['counts'].values())
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shared_edges(polygons, fields['class_id']) == 0
    np.testing.assert_array_equal(
        draw(polygons, fields['class_id'], ids.shape, UTM['transform']), ids)
    for class_id, name in enumerate(NAMES):
        pixels = np.count_nonzero(ids == class_id)
        assert fields['area_m2'][fields['class'] == name].sum() == pytest.approx(pixels * 0.25)
        assert result['areas'].get(name, 0) == pytest.approx(pixels * 0.25)
    np.testing.assert_allclose(shapely.area(polygons), fields['area_m2'])


@pytest.mark.parametrize('rows', [1, 2, 7, 64])
def test_seams_of_strips_leave_no_trace(tmp_path, monkeypatch, rows):
    ids = blobs()
    # Spirals meet every seam many times before they close.
    ids[20:80, 20:80] = 2
    for ring in range(0, 30, 4):
        ids[20 + ring:80 - ring, 20 + ring:80 - ring] = 1
        ids[22 + ring:78 - ring, 22 + ring:78 - ring] = 2
        ids[24 + ring, 22 + ring:24 + ring] = 1
    labels = write_map(tmp_path / 'map.tif', ids, **UTM)
    write_vectors(labels, tmp_path / 'whole.fgb')
    monkeypatch.setattr(features_io, 'PIXELS_IN_STRIP', rows * ids.shape[1])
    with features_io.open_labels(labels) as raster:
        assert len(raster.strips) == -(-len(ids) // rows)
    write_vectors(labels, tmp_path / 'strips.fgb')
    _, whole, whole_fields = read(tmp_path / 'whole.fgb')
    _, strips, fields = read(tmp_path / 'strips.fgb')
    assert len(strips) == count_regions(ids)
    assert shared_edges(strips, fields['class_id']) == 0
    orders = [np.argsort(shapely.to_wkt(shapely.normalize(polygons)))
              for polygons in (whole, strips)]
    assert shapely.equals_exact(shapely.normalize(whole[orders[0]]),
                                shapely.normalize(strips[orders[1]])).all()
    np.testing.assert_array_equal(whole_fields['class_id'][orders[0]],
                                  fields['class_id'][orders[1]])


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_formats(tmp_path, suffix):
    ids = blobs()
    labels, out = write_map(tmp_path / 'map.tif', ids, **UTM), tmp_path / f'map{suffix}'
    result = write_vectors(labels, out)
    meta, polygons, fields = read(out)
    assert set(fields) == {'class_id', 'class', 'area_m2', 'colour'}
    assert meta['geometry_type'] == 'Polygon'
    assert set(fields['class_id']) == {0, 1, 2}
    for class_id, name, colour in zip(fields['class_id'], fields['class'], fields['colour']):
        assert (name, colour) == (NAMES[class_id], COLOURS[class_id])
    assert result['counts'] == {
        name: np.count_nonzero(fields['class'] == name) for name in NAMES}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(['map.tif', out.name])
    if suffix == '.geojson':
        assert meta['crs'] == 'EPSG:4326' and b'"crs"' not in out.read_bytes()
        x, y = warp('EPSG:4326', 'EPSG:32633', *shapely.get_coordinates(polygons).T)
        polygons = shapely.set_coordinates(polygons, np.stack([x, y], axis=1))
        # The right-hand rule, and 1 % of a pixel.
        assert all(polygon.exterior.is_ccw for polygon in polygons)
        np.testing.assert_allclose(np.remainder(np.add(x, 0.1), 0.5), 0.1, atol=0.01)
    else:
        assert meta['crs'] == 'EPSG:32633'
    np.testing.assert_array_equal(
        draw(polygons, fields['class_id'], ids.shape, UTM['transform']), ids)
    if suffix == '.gpkg':
        assert pyogrio.list_layers(out).tolist() == [['polygons', 'Polygon']]


@pytest.mark.parametrize('suffix', ['.geojson', '.fgb'])
def test_the_same_map_gives_the_same_bytes(tmp_path, suffix):
    labels = write_map(tmp_path / 'map.tif', blobs(), **UTM)
    for name in 'ab':
        write_vectors(labels, tmp_path / f'{name}{suffix}', simplify=0.5, min_area=2)
    assert (tmp_path / f'a{suffix}').read_bytes() == (tmp_path / f'b{suffix}').read_bytes()


@pytest.mark.parametrize('transform', [
    Affine(2, 0, 400_000, 0, -0.5, 5_000_000),
    Affine(0.3, 0, 400_000, 0, 0.3, 5_000_000),
    Affine.translation(400_000, 5_000_000) @ Affine.rotation(33) @ Affine.scale(0.4, -0.7),
    Affine.translation(400_000, 5_000_000) @ Affine.rotation(200) @ Affine.scale(1, 1)])
def test_transforms(tmp_path, transform):
    ids = blobs(seed=1)
    labels = write_map(tmp_path / 'map.tif', ids, crs='EPSG:32633', transform=transform)
    write_vectors(labels, tmp_path / 'map.gpkg')
    _, polygons, fields = read(tmp_path / 'map.gpkg')
    assert all(polygon.exterior.is_ccw for polygon in polygons)
    assert shapely.coverage_is_valid(polygons)
    np.testing.assert_array_equal(draw(polygons, fields['class_id'], ids.shape, transform), ids)
    pixel = abs(transform.determinant)
    np.testing.assert_allclose(shapely.area(polygons), fields['area_m2'], rtol=1e-6)
    assert fields['area_m2'].sum() == pytest.approx(np.count_nonzero(ids != NODATA) * pixel)


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


def test_areas_in_a_projection_that_stretches_are_those_on_the_ground(tmp_path):
    corners = warp('EPSG:4326', 'EPSG:3857', [10, 10.01], [60.01, 60])
    (left, right), (top, bottom) = corners
    transform = Affine((right - left) / 20, 0, left, 0, (bottom - top) / 10, top)
    labels = write_map(tmp_path / 'map.tif', np.zeros((10, 20)), crs='EPSG:3857',
                       transform=transform)
    areas = write_vectors(labels, tmp_path / 'map.gpkg')['areas']
    assert areas['ground'] == pytest.approx(cell_area(60, 60.01, 0.01), rel=1e-6)
    assert areas['ground'] < 0.3 * (right - left) * (top - bottom)


def test_areas_of_maps_in_feet_are_in_metres(tmp_path):
    labels = write_map(tmp_path / 'map.tif', np.zeros((10, 20)), crs='EPSG:2263',
                       transform=Affine(2, 0, 1e6, 0, -2, 2e5))
    areas = write_vectors(labels, tmp_path / 'map.gpkg')['areas']
    assert areas['ground'] == pytest.approx(200 * (2 * 1200 / 3937)**2, rel=1e-9)


def test_a_local_system_is_measured_in_its_units(tmp_path):
    local = 'LOCAL_CS["site",UNIT["metre",1],AXIS["East",EAST],AXIS["North",NORTH]]'
    labels = write_map(tmp_path / 'map.tif', np.zeros((10, 20)), crs=local,
                       transform=Affine(3, 0, 0, 0, -3, 0))
    assert write_vectors(labels, tmp_path / 'map.gpkg')['areas'] == {'ground': 1800}


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


@pytest.mark.parametrize('rows', [3, 40, 500])
@pytest.mark.parametrize('crs, transform', [
    ('EPSG:4326', Affine(0.02, 0, 5, 0, -0.2, 84)),
    ('EPSG:3395', Affine(2_000, 0, 0, 0, -30_000, 1.2e7)),
    ('EPSG:3031', Affine(9_000, 500, 1e5, -500, -9_000, 3e6))])
def test_the_smallest_area_is_the_area_that_is_written(tmp_path, monkeypatch, crs, transform, rows):
    """Also where pixels of one strip have very different areas."""
    ids = np.zeros((400, 24), int)
    rng = np.random.default_rng(0)
    for top in range(1, 398, 4):
        left = rng.integers(1, 16)
        ids[top:top + 2, left:left + rng.integers(1, 7)] = 1
    monkeypatch.setattr(features_io, 'PIXELS_IN_STRIP', rows * ids.shape[1])
    labels, out = write_map(tmp_path / 'map.tif', ids, crs=crs, transform=transform), (
        tmp_path / 'map.fgb')
    write_vectors(labels, out, classes=[1])
    areas = np.sort(read(out)[2]['area_m2'])
    assert areas[-1] > 5 * areas[0]
    for smallest in (areas[20], (areas[50] + areas[51]) / 2, areas[90]):
        write_vectors(labels, out, classes=[1], min_area=smallest)
        np.testing.assert_allclose(np.sort(read(out)[2]['area_m2']), areas[areas >= smallest])


@pytest.mark.parametrize('crs, transform, expected', [
    # On the Moon's sphere, and on Mars's ellipsoid of 3396.19 and 3376.2 km.
    ('IAU_2015:30100', Affine(0.5, 0, 20, 0, -0.5, 35),
     1_737_400**2 * np.radians(10) * (np.sin(np.radians(35)) - np.sin(np.radians(30)))),
    ('+proj=eqc +R=1737400 +lat_ts=0', Affine(1000, 0, 0, 0, -1000, 5000), 200e6),
    ('+proj=stere +lat_0=90 +a=3396190 +b=3376200', Affine(1000, 0, -1e4, 0, -1000, 5e3), 200e6),
    ('+proj=longlat +a=3396190 +b=3376200', Affine(0.01, 0, 7, 0, -0.01, 0.05),
     np.radians(0.2) * np.radians(0.1) * 3376200**2)])
def test_other_bodies_are_measured_on_their_own_ellipsoid(tmp_path, crs, transform, expected):
    labels = write_map(tmp_path / 'map.tif', np.zeros((10, 20)), crs=crs, transform=transform)
    areas = write_vectors(labels, tmp_path / 'map.gpkg')['areas']
    assert areas['ground'] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(UserError, match='map.tif has a CRS of another body, .* .gpkg or .fgb'):
        write_vectors(labels, tmp_path / 'map.geojson')


POINTS = [GroundControlPoint(row, column, 10 + column / 100, 50 - row / 100)
          for row, column in ((0, 0), (0, 120), (90, 0), (90, 120))]


@pytest.mark.parametrize('profile, message', [
    ({}, 'no CRS'), ({'transform': Affine(2, 0, 7, 0, -2, 50)}, 'no CRS'),
    ({'crs': 'EPSG:4326'}, 'a CRS without a transform'),
    ({'crs': 'EPSG:32633'}, 'a CRS without a transform'),
    ({'gcps': POINTS, 'crs': 'EPSG:4326'}, 'ground control points only, .*gdalwarp'),
    ({'crs': 'LOCAL_CS["site",UNIT["metre",1]]', 'transform': Affine(3, 0, 5, 0, -3, 0)},
     'a local CRS'),
    ({'crs': 'EPSG:3031', 'transform': Affine(90, 0, -4e3, 0, -90, 1e3)}, 'a pole')])
def test_geojson_of_no_place_on_earth_is_refused(tmp_path, profile, message):
    labels = write_map(tmp_path / 'map.tif', blobs(), **profile)
    with pytest.raises(UserError, match=f'map.tif has {message}.*map.geojson.* .gpkg or .fgb'):
        write_vectors(labels, tmp_path / 'map.geojson')
    with pytest.raises(UserError, match=f'map.tif has {message}.*map_centerlines.geojson'):
        write_centerlines(labels, tmp_path / 'map.geojson', ['road'])
    assert [path.name for path in tmp_path.iterdir()] == ['map.tif']


def test_geojson_is_cut_where_longitude_jumps(tmp_path):
    ids = blobs(60, 80, seed=4)
    labels = write_map(tmp_path / 'map.tif', ids, crs='EPSG:3832',
                       transform=Affine(500, 0, 3339584.7 - 19_870, 0, -500, 1e6))
    areas = write_vectors(labels, tmp_path / 'map.geojson')['areas']
    _, polygons, fields = read(tmp_path / 'map.geojson')
    assert shapely.is_valid(polygons).all()
    assert abs(shapely.bounds(polygons)[:, [0, 2]]).min() > 179.5
    widths = shapely.bounds(shapely.get_parts(polygons)) @ [-1, 0, 1, 0]
    assert widths.max() < 0.5 and fields['area_m2'].sum() == pytest.approx(sum(areas.values()))


@pytest.mark.parametrize('suffix', ['.gpkg', '.fgb'])
@pytest.mark.parametrize('profile', [{}, {'gcps': POINTS, 'crs': 'EPSG:4326'},
                                     {'crs': 'EPSG:4326'}])
def test_without_a_place(tmp_path, recwarn, suffix, profile):
    """Coordinates are pixels, and no reader takes them for degrees."""
    ids = blobs()
    labels, out = write_map(tmp_path / 'map.tif', ids, **profile), tmp_path / f'map{suffix}'
    result = write_vectors(labels, out, min_pixels=20)
    assert not recwarn.list
    meta, polygons, fields = read(out)
    assert meta['crs'] is None
    assert 'area_m2' not in fields
    assert fields['area_px'].min() >= 20
    np.testing.assert_allclose(shapely.area(polygons), fields['area_px'])
    assert sum(result['areas'].values()) == np.count_nonzero(ids != NODATA)
    with pytest.raises(UserError, match=r'map.tif has no CRS, so min_area=5 m² .* min_pixels'):
        write_vectors(labels, out, min_area=5)


def write_project(path: Path) -> dict[str, bytes]:
    """Write a GeoPackage of somebody's layers; return what is in them."""
    points = shapely.to_wkb(shapely.points(np.arange(20).reshape(10, 2)))
    for layer, crs in (('wells', 'EPSG:4326'), ('polygons of mine', 'EPSG:32750')):
        pyogrio.raw.write(path, points, [np.arange(10)], ['depth'], layer=layer, driver='GPKG',
                          geometry_type='Point', crs=crs)
    return content_of(path)


def content_of(path: Path) -> dict[str, bytes]:
    """Return the rows of each layer but ours."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name: repr(connection.execute(f'select * from "{name}"').fetchall()).encode()
                for name, in connection.execute('select table_name from gpkg_contents')
                if name not in ('polygons', 'centerlines')}


def test_other_layers_of_a_geopackage_are_kept(tmp_path):
    out = tmp_path / 'project.gpkg'
    before = write_project(out)
    assert sorted(before) == ['polygons of mine', 'wells'] and min(map(len, before.values())) > 100
    for ids in (blobs(), blobs(seed=3)):
        labels = write_map(tmp_path / 'map.tif', ids, **UTM)
        write_vectors(labels, out)
        write_centerlines(labels, out, ['road'])
        assert content_of(out) == before
        assert len(read(out, 'polygons')[1]) == count_regions(ids)
    assert {path.name for path in tmp_path.iterdir()} == {'map.tif', 'project.gpkg'}


KILLED = """
import os, signal, sys
import pyogrio
from bhvit_seg.raster.vector.vectors import write_vectors
write = pyogrio.raw.write
def write_and_die(*args, **kwargs):
    if sys.argv[3] == 'after':
        write(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
pyogrio.raw.write = write_and_die
write_vectors(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize('moment', ['before', 'after'])
def test_a_killed_run_leaves_the_geopackage_as_it_was(tmp_path, repository, moment):
    out = tmp_path / 'project.gpkg'
    write_project(out)
    content = out.read_bytes()
    labels = write_map(tmp_path / 'map.tif', blobs(), **UTM)
    told = subprocess.run([sys.executable, '-c', KILLED, str(labels), str(out), moment],
                          env={**os.environ, 'PYTHONPATH': str(repository)})
    assert told.returncode == -signal.SIGKILL and out.read_bytes() == content


@pytest.mark.parametrize('ending', ['-wal', '-shm', '-journal'])
def test_a_geopackage_that_is_open_elsewhere_is_refused(tmp_path, ending):
    out = tmp_path / 'project.gpkg'
    write_project(out)
    (tmp_path / f'project.gpkg{ending}').write_text('')
    with pytest.raises(UserError, match=f'project.gpkg is open .*project.gpkg{ending}'):
        write_vectors(write_map(tmp_path / 'map.tif', blobs(), **UTM), out)


@pytest.mark.parametrize('name', ['project.gpkg', 'notes.gpkg'])
def test_files_that_are_not_ours_to_write_are_refused(tmp_path, name):
    (tmp_path / 'notes.gpkg').write_text('not a GeoPackage')
    ids = blobs()[None].astype(np.uint8)
    with rasterio.open(tmp_path / 'project.gpkg', 'w', driver='GPKG', count=1, dtype='uint8',
                       height=ids.shape[1], width=ids.shape[2], **UTM) as dataset:
        dataset.write(ids)
    before = (tmp_path / name).read_bytes()
    labels = (tmp_path / name if name == 'project.gpkg'
              else write_map(tmp_path / 'map.tif', ids[0], **UTM))
    with pytest.raises(UserError, match=f'{name} is |{name} has bands'):
        write_vectors(labels, tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('options', [{}, {'simplify': 1.0, 'min_area': 3}])
def test_nothing_to_write_is_an_empty_layer(tmp_path, suffix, options):
    labels = write_map(tmp_path / 'map.tif', np.full((5, 7), NODATA), **UTM)
    result = write_vectors(labels, tmp_path / f'map{suffix}', **options)
    assert result == {'counts': {}, 'areas': {}}
    meta, polygons, fields = read(tmp_path / f'map{suffix}')
    assert len(polygons) == 0
    if suffix != '.geojson':
        assert meta['geometry_type'] == 'Polygon' and 'area_m2' in fields


def test_classes_by_name_and_id(tmp_path):
    ids = blobs()
    labels, out = write_map(tmp_path / 'map.tif', ids, **UTM), tmp_path / 'map.fgb'
    assert set(write_vectors(labels, out, classes=['road', 2])['counts']) == {'road', 'water'}
    _, polygons, fields = read(out)
    np.testing.assert_array_equal(
        draw(polygons, fields['class_id'], ids.shape, UTM['transform']),
        np.where(ids == 0, NODATA, ids))
    with pytest.raises(UserError, match="no class 'forest': give one of 0 ground, 1 road, 2 water"):
        write_vectors(labels, out, classes=['forest'])


@pytest.mark.parametrize('rows', [1, 3, 64])
def test_small_regions_go_to_their_neighbours(tmp_path, monkeypatch, rows):
    ids = np.zeros((12, 16), int)
    ids[2:4, 2:4] = 2                 # a speck
    ids[:, 8:10] = 1                  # a road, which a car of 1 x 2 pixels cuts in two
    ids[5, 8:10] = 2
    ids[9:, 12:] = NODATA
    ids[11, 14:] = 1                  # alone in nodata
    ids[:2, 14:] = 2                  # large enough: 4 pixels
    monkeypatch.setattr(features_io, 'PIXELS_IN_STRIP', rows * ids.shape[1])
    labels, out = write_map(tmp_path / 'map.tif', ids, **UTM), tmp_path / 'map.fgb'
    write_vectors(labels, out, min_area=1.25)
    _, polygons, fields = read(out)
    expected = ids.copy()
    expected[2:4, 2:4] = 0
    # It borders on four pixels of road, and on two of the ground.
    expected[5, 8:10] = 1
    expected[11, 14:] = NODATA
    expected[:2, 14:] = 0
    np.testing.assert_array_equal(
        draw(polygons, fields['class_id'], ids.shape, UTM['transform']), expected)
    assert len(polygons) == count_regions(expected) == 3
    write_vectors(labels, out, min_pixels=4)
    _, polygons, fields = read(out)
    expected[2:4, 2:4] = expected[:2, 14:] = 2
    np.testing.assert_array_equal(
        draw(polygons, fields['class_id'], ids.shape, UTM['transform']), expected)


@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=arrays.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)),
                         elements=st.sampled_from([0, 0, 0, 1, 2, NODATA])),
       rows=st.integers(1, 14), smallest=st.integers(2, 12))
def test_what_is_large_enough_stays_a_partition(tmp_path, monkeypatch, ids, rows, smallest):
    monkeypatch.setattr(features_io, 'PIXELS_IN_STRIP', rows * ids.shape[1])
    labels, out = write_map(tmp_path / 'map.tif', ids, **UTM), tmp_path / 'map.fgb'
    write_vectors(labels, out, min_pixels=smallest)
    _, polygons, fields = read(out)
    drawn = draw(polygons, fields['class_id'], ids.shape, UTM['transform'])
    # Patches of valid pixels stay whole, or are left out whole where they are too small.
    patches = measure.label(ids != NODATA, connectivity=1)
    enough = np.bincount(patches.ravel()) >= smallest
    enough[0] = False
    np.testing.assert_array_equal(drawn != NODATA, enough[patches])
    assert len(polygons) == count_regions(drawn)
    regions = measure.label(drawn, connectivity=1, background=NODATA)
    assert (np.bincount(regions.ravel())[1:] >= smallest).all()
    # Regions that are large enough keep their class.
    before = measure.label(ids, connectivity=1, background=NODATA)
    large = (np.bincount(before.ravel()) >= smallest)[before] & (ids != NODATA)
    np.testing.assert_array_equal(drawn[large], ids[large])


@pytest.mark.parametrize('profile, metres', [
    (UTM, 0.5),
    ({'crs': 'EPSG:4326', 'transform': Affine(1e-5, 0, 10, 0, -5e-6, 60)}, 0.557)])
def test_simple_borders_leave_no_gaps(tmp_path, profile, metres):
    ids = blobs(seed=2, scale=12)
    labels = write_map(tmp_path / 'map.tif', ids, **profile)
    write_vectors(labels, tmp_path / 'plain.fgb', min_pixels=20)
    write_vectors(labels, tmp_path / 'simple.fgb', min_pixels=20, simplify=2 * metres)
    _, plain, plain_fields = read(tmp_path / 'plain.fgb')
    _, simple, fields = read(tmp_path / 'simple.fgb')
    # FlatGeobuf sorts features by place.
    assert sorted(fields['area_m2']) == sorted(plain_fields['area_m2'])
    assert shapely.coverage_is_valid(simple) and shapely.is_valid(simple).all()
    union, whole = shapely.coverage_union_all(simple), shapely.coverage_union_all(plain)
    assert union.area == pytest.approx(shapely.area(simple).sum(), rel=1e-9)
    assert shapely.area(shapely.symmetric_difference(union, whole)) < 0.02 * whole.area
    assert (shapely.get_num_coordinates(simple).sum()
            < 0.5 * shapely.get_num_coordinates(plain).sum())
    # Corners are left out, not moved.
    corners = {tuple(point) for point in shapely.get_coordinates(plain)}
    assert {tuple(point) for point in shapely.get_coordinates(simple)} <= corners
    drawn = draw(simple, fields['class_id'], ids.shape, profile['transform'])
    assert np.mean(drawn == ids) > 0.8


def test_rasters_without_names_and_colours(tmp_path):
    ids = np.array([[3, 3], [3, 7]])
    path = tmp_path / 'map.tif'
    with rasterio.open(path, 'w', driver='GTiff', count=1, height=2, width=2, dtype='uint8',
                       **UTM) as dataset:
        dataset.write(ids.astype(np.uint8), 1)
    assert write_vectors(path, tmp_path / 'map.gpkg')['counts'] == {'3': 1, '7': 1}
    _, _, fields = read(tmp_path / 'map.gpkg')
    assert fields['colour'].tolist() == [None, None]


def test_what_is_refused(tmp_path):
    labels, out = write_map(tmp_path / 'map.tif', blobs(), **UTM), tmp_path / 'map.gpkg'
    (tmp_path / 'text.tif').write_text('no raster')
    with rasterio.open(tmp_path / 'float.tif', 'w', driver='GTiff', count=2, height=2, width=2,
                       dtype='float32', **UTM) as dataset:
        dataset.write(np.zeros((2, 2, 2), np.float32))
    for arguments, message in [
            ((tmp_path / 'none.tif', out, {}), r'none.tif \(no such file\): give a GeoTIFF'),
            ((tmp_path / 'text.tif', out, {}), r'cannot read .*text.tif .*: give a GeoTIFF'),
            ((tmp_path / 'float.tif', out, {}), r'bands of float32, float32, but class ids'),
            ((labels, tmp_path / 'map.shp', {}), r'map.shp has no suffix .* .gpkg, .geojson, .fgb'),
            ((labels, out, {'simplify': -1.0}), r'simplify=-1.0 is no size'),
            ((labels, out, {'min_area': float('nan')}), r'min_area=nan is no size'),
            ((labels, out, {'min_area': 3, 'min_pixels': 2}), r'both given'),
            ((labels, labels / 'map.gpkg', {}), r'cannot write .*map.gpkg: File exists')]:
        source, target, options = arguments
        with pytest.raises(UserError, match=message):
            write_vectors(source, target, **options)
    assert not out.exists()


def test_a_damaged_map_is_named_with_its_rows(tmp_path):
    labels = write_map(tmp_path / 'map.tif', np.random.default_rng(0).integers(0, 3, (600, 600)),
                       **UTM, compress='deflate', tiled=True, blockxsize=256, blockysize=256)
    content = bytearray(labels.read_bytes())
    content[len(content) // 2:len(content) // 2 + 2000] = bytes(2000)
    labels.write_bytes(content)
    with pytest.raises(UserError, match=r'map.tif cannot be read in rows \d+ to \d+'):
        write_vectors(labels, tmp_path / 'map.gpkg')
    assert [path.name for path in tmp_path.iterdir()] == ['map.tif']


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_full_disk_leaves_what_was_there(tmp_path, suffix):
    labels = write_map(tmp_path / 'map.tif',
                       np.random.default_rng(0).integers(0, 3, (400, 400)), **UTM)
    with small_disk(tmp_path / 'disk', '1M') as disk:
        out = disk / f'map{suffix}'
        if suffix == '.gpkg':
            write_project(out)
        else:
            out.write_text('before')
        before = out.read_bytes()
        with pytest.raises(UserError, match=f'cannot write .*map{suffix}: .*; make room'):
            write_vectors(labels, out)
        assert [path.name for path in disk.iterdir()] == [out.name]
        assert out.read_bytes() == before


@pytest.mark.parametrize('package', ['pyogrio', 'pyproj', 'shapely', 'skimage.measure'])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    labels = write_map(tmp_path / 'map.tif', blobs(), **UTM)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"package {package}, .*'bhvit_seg\[raster,vector\]'"):
        write_vectors(labels, tmp_path / 'map.gpkg')


def test_pandas_is_not_needed(tmp_path, repository):
    labels = write_map(tmp_path / 'map.tif', blobs(), crs='EPSG:4326',
                       transform=Affine(1e-5, 0, 10, 0, -1e-5, 60))
    script = ('import sys\n'
              "sys.modules.update(dict.fromkeys(['pandas', 'geopandas', 'torch']))\n"
              'from bhvit_seg.raster.vector.vectors import write_vectors\n'
              'for out in sys.argv[2:]: write_vectors(sys.argv[1], out, min_area=5, simplify=1)\n')
    subprocess.run([sys.executable, '-c', script, str(labels), str(tmp_path / 'map.geojson'),
                    str(tmp_path / 'map.gpkg')], check=True, cwd=repository)
    assert len(read(tmp_path / 'map.gpkg')[1]) == len(read(tmp_path / 'map.geojson')[1]) > 0


def test_progress_ends_at_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(features_io, 'PIXELS_IN_STRIP', 1000)
    shares = []
    write_vectors(write_map(tmp_path / 'map.tif', blobs(), **UTM), tmp_path / 'map.fgb',
                  progress=shares.append)
    assert len(shares) > 10 and shares == sorted(shares) and shares[-1] == 1
