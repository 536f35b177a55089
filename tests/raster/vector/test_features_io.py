"""Layers in files: formats, coordinate systems, and what is never replaced."""

import os
import signal
import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from raster.layers import (
    COLOURS,
    SUFFIXES,
    UTM,
    blobs,
    content_of,
    count_regions,
    draw,
    read,
    write_project,
)
from raster.rasters import NAMES, NODATA, write_map
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine
from rasterio.warp import transform as warp

from bhvit_seg.errors import UserError
from bhvit_seg.raster.vector.centerlines import write_centerlines
from bhvit_seg.raster.vector.vectors import write_vectors


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


POINTS = [GroundControlPoint(row, column, 10 + column / 100, 50 - row / 100)
          for row, column in ((0, 0), (0, 120), (90, 0), (90, 120))]


@pytest.mark.parametrize('profile', [
    {}, {'transform': Affine(2, 0, 7, 0, -2, 50)}, {'crs': 'EPSG:4326'}, {'crs': 'EPSG:32633'},
    {'gcps': POINTS, 'crs': 'EPSG:4326'},
    {'crs': 'LOCAL_CS["site",UNIT["metre",1]]', 'transform': Affine(3, 0, 5, 0, -3, 0)},
    {'crs': 'EPSG:3031', 'transform': Affine(90, 0, -4e3, 0, -90, 1e3)}])
def test_geojson_of_no_place_on_earth_is_refused(tmp_path, profile):
    labels = write_map(tmp_path / 'map.tif', blobs(), **profile)
    with pytest.raises(UserError, match='map.tif cannot .*map.geojson.* .gpkg or .fgb'):
        write_vectors(labels, tmp_path / 'map.geojson')
    with pytest.raises(UserError, match='map.tif cannot .*map_centerlines.geojson'):
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


@pytest.mark.parametrize('suffix, profile', [
    ('.gpkg', {}), ('.fgb', {}), ('.gpkg', {'gcps': POINTS, 'crs': 'EPSG:4326'}),
    ('.fgb', {'crs': 'EPSG:4326'})])
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
    write(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
pyogrio.raw.write = write_and_die
write_vectors(sys.argv[1], sys.argv[2])
"""


def test_a_killed_run_leaves_the_geopackage_as_it_was(tmp_path, repository):
    out = tmp_path / 'project.gpkg'
    write_project(out)
    content = out.read_bytes()
    labels = write_map(tmp_path / 'map.tif', blobs(), **UTM)
    told = subprocess.run([sys.executable, '-c', KILLED, str(labels), str(out)],
                          env={**os.environ, 'PYTHONPATH': str(repository)})
    assert told.returncode == -signal.SIGKILL and out.read_bytes() == content


def test_a_geopackage_that_is_open_elsewhere_is_refused(tmp_path):
    out, labels = tmp_path / 'project.gpkg', write_map(tmp_path / 'map.tif', blobs(), **UTM)
    write_project(out)
    for ending in ('-wal', '-shm', '-journal'):
        (tmp_path / f'project.gpkg{ending}').write_text('')
        with pytest.raises(UserError, match=f'project.gpkg is open .*project.gpkg{ending}'):
            write_vectors(labels, out)
        (tmp_path / f'project.gpkg{ending}').unlink()


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
def test_nothing_to_write_is_an_empty_layer(tmp_path, suffix):
    labels, out = write_map(tmp_path / 'map.tif', np.full((5, 7), NODATA), **UTM), (
        tmp_path / f'map{suffix}')
    for options in ({'simplify': 1.0, 'min_area': 3}, {}):
        assert write_vectors(labels, out, **options) == {'counts': {}, 'areas': {}}
        meta, polygons, fields = read(out)
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
            ((labels, out, {'simplify': -1.0}), r'simplify=-1.0 is not a size'),
            ((labels, out, {'min_area': float('nan')}), r'min_area=nan is not a size'),
            ((labels, out, {'min_area': 3, 'min_pixels': 2}), r'both given'),
            ((labels, labels / 'map.gpkg', {}), r'cannot write .*map.gpkg: File exists')]:
        source, target, options = arguments
        with pytest.raises(UserError, match=message):
            write_vectors(source, target, **options)
    assert not out.exists()


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_full_disk_leaves_what_was_there(tmp_path, file_limit, suffix):
    labels = write_map(tmp_path / 'map.tif',
                       np.random.default_rng(0).integers(0, 3, (400, 400)), **UTM)
    out = tmp_path / f'map{suffix}'
    if suffix == '.gpkg':
        write_project(out)
    else:
        out.write_text('before')
    before = out.read_bytes()
    with file_limit(200_000), pytest.raises(
            UserError, match=f'cannot write .*map{suffix}: .* MB are free.*; make room'):
        write_vectors(labels, out)
    assert {path.name for path in tmp_path.iterdir()} == {'map.tif', out.name}
    assert out.read_bytes() == before
