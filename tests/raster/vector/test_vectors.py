"""Polygons of label rasters, read back by pyogrio and drawn again by GDAL."""

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from raster.layers import UTM, blobs, count_regions, draw, read
from raster.rasters import NAMES, NODATA, write_map
from rasterio.transform import Affine
from skimage import measure

from bhvit_seg.raster.vector import features_io
from bhvit_seg.raster.vector.vectors import write_vectors


def shared_edges(polygons: np.ndarray, ids: np.ndarray) -> float:
    """Return how long the edges are along which polygons of one class touch."""
    one, other = shapely.STRtree(polygons).query(polygons, predicate='intersects')
    same = (one < other) & (ids[one] == ids[other])
    return float(shapely.length(shapely.intersection(polygons[one[same]],
                                                     polygons[other[same]])).sum())


def rasters(side: int, values: list[int]) -> st.SearchStrategy:
    return arrays.arrays(np.uint8, st.tuples(st.integers(1, side), st.integers(1, side)),
                         elements=st.sampled_from(values))


RASTERS = settings(max_examples=40, deadline=None, derandomize=True,
                   suppress_health_check=[HealthCheck.function_scoped_fixture])


@RASTERS
@given(ids=rasters(12, [0, 1, 2, NODATA]), rows=st.integers(1, 12))
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


@pytest.mark.parametrize('transform', [
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


def test_small_regions_go_to_their_neighbours(tmp_path, monkeypatch, rows=3):
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


@RASTERS
@given(ids=rasters(14, [0, 0, 0, 1, 2, NODATA]), rows=st.integers(1, 14),
       smallest=st.integers(2, 12))
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
