"""Centre lines of shapes whose centre lines are known: lines made wide, drawn by GDAL."""

import sys

import numpy as np
import pyogrio
import pytest
import shapely
from raster.layers import COLOURS, SUFFIXES, UTM, read
from raster.rasters import write_map
from rasterio.features import rasterize
from rasterio.transform import Affine

from bhvit_seg.errors import UserError
from bhvit_seg.raster.opening import open_raster
from bhvit_seg.raster.vector import skeletons
from bhvit_seg.raster.vector.centerlines import centerlines_path, write_centerlines
from bhvit_seg.raster.vector.vectors import write_vectors

ROAD = 1


def roads(shape: tuple[int, int], width: float, *lines) -> np.ndarray:
    """Return class ids with roads of a width around lines, all in pixels; ends are square."""
    wide = [shapely.buffer(line if hasattr(line, 'geom_type') else shapely.LineString(line),
                           width / 2, cap_style='flat') for line in lines]
    return rasterize(wide, out_shape=shape, default_value=ROAD).astype(np.uint8)


@pytest.fixture
def trace(tmp_path):
    """A function that returns the centre lines of class ids in pixels, and their fields."""

    def run(ids: np.ndarray, **options) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        labels = write_map(tmp_path / 'map.tif', ids)
        result = write_centerlines(labels, tmp_path / 'map.gpkg', ['road'], **options)
        _, lines, fields = read(tmp_path / 'map.gpkg', 'centerlines')
        assert shapely.is_valid(lines).all()
        assert result['counts'] == {'road': len(lines)}
        assert result['lengths']['road'] == pytest.approx(fields['length_px'].sum())
        np.testing.assert_allclose(shapely.length(lines), fields['length_px'])
        return lines, fields

    return run


def distance(lines: np.ndarray, *truth) -> float:
    """Return how far, in pixels, lines are from the true ones at most, in either direction."""
    return shapely.hausdorff_distance(
        shapely.union_all(lines), shapely.union_all([
            line if hasattr(line, 'geom_type') else shapely.LineString(line) for line in truth]),
        densify=0.01)


def junctions(lines: np.ndarray) -> dict[tuple[float, float], int]:
    """Return how many ends of lines meet at each place where more than one does."""
    ends = np.concatenate([shapely.get_coordinates(line)[[0, -1]] for line in lines])
    places, counts = np.unique(ends, axis=0, return_counts=True)
    return {tuple(place): count for place, count in zip(places.tolist(), counts) if count > 1}


@pytest.mark.parametrize('width', [3, 12, 40])
@pytest.mark.parametrize('line', [
    [(50, 100), (350, 100)], [(200, 20), (200, 180)], [(60, 40), (330, 150)],
    [(60, 170), (250, 40)]])
def test_straight(trace, line, width):
    lines, fields = trace(roads((200, 400), width, line))
    assert len(lines) == 1
    length = shapely.LineString(line).length
    assert fields['length_px'][0] == pytest.approx(length, abs=0.02 * length + 1.5)
    assert distance(lines, line) < 2 + 0.05 * width
    assert fields['width_px'][0] == pytest.approx(width, abs=1 + 0.1 * width)


def test_curved(trace):
    x = np.linspace(20, 580, 300)
    line = np.stack([x, 150 + 90 * np.sin(x / 60)], axis=1)
    ids = roads((300, 600), 9, line)
    lines, fields = trace(ids)
    assert len(lines) == 1
    assert fields['length_px'][0] == pytest.approx(shapely.LineString(line).length, rel=0.02)
    assert distance(lines, line) < 2
    # Few points: it is a map.
    points = [shapely.get_num_coordinates(lines[0])]
    points += [shapely.get_num_coordinates(trace(ids, simplify=tolerance)[0]).sum()
               for tolerance in (1, 4)]
    assert points == sorted(points, reverse=True) and points[2] < points[0] / 2 < 60


SLANT = 120 * np.array([np.cos(np.radians(50)), np.sin(np.radians(50))])
RING = shapely.Point(200, 150).buffer(60).exterior


@pytest.mark.parametrize('truth, count, places, ends, farthest', [
    # A T, an X, a slanting X, a ring, a roundabout with three arms.
    ([[(30, 60), (370, 60)], [(190, 60), (190, 270)]], 3, [(190, 60)], 3, 1.5),
    ([[(20, 150), (380, 150)], [(200, 30), (200, 270)]], 4, [(200, 150)], 4, 3),
    ([[(20, 150), (380, 150)], [(200, 150) - SLANT, (200, 150) + SLANT]], 4, [(200, 150)], 4, 3),
    ([RING], 1, [], 0, 2),
    ([RING, [(0, 150), (140, 150)], [(260, 150), (400, 150)], [(200, 0), (200, 90)]], 6,
     [(140, 150), (200, 90), (260, 150)], 3, 4)])
def test_lines_meet_where_they_should(trace, truth, count, places, ends, farthest):
    lines, fields = trace(roads((300, 400), 12, *truth))
    assert len(lines) == count and lines[0].is_closed == (count == 1)
    assert distance(lines, *truth) < farthest
    found = junctions(lines) if count > 1 else {}
    assert list(found.values()) == [ends] * len(places)
    np.testing.assert_allclose(sorted(found) or [(0, 0)], places or [(0, 0)], atol=farthest)
    whole = sum(map(shapely.length, map(shapely.LineString, truth)))
    assert fields['length_px'].sum() == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize('shift', [0, 5, 31])
def test_seams_of_tiles_leave_no_trace(trace, monkeypatch, shift):
    x = np.linspace(20, 580, 300)
    line = np.stack([x, 150 + 90 * np.sin(x / 40) + 0.05 * x], axis=1) + shift
    ids = roads((360, 640), 9, line)
    whole, _ = trace(ids)
    monkeypatch.setattr(skeletons, 'TILE', 64)
    monkeypatch.setattr(skeletons, 'HALO', 32)
    tiles, _ = trace(ids)
    assert len(tiles) == len(whole) == 1
    assert shapely.equals_exact(shapely.normalize(whole), shapely.normalize(tiles)).all()


@pytest.mark.parametrize('line', [
    [(-50, 90), (450, 90)], [(-50, 60), (450, 140)], [(130, -50), (180, 250)],
    [(-50, 0), (450, 170)]])
@pytest.mark.parametrize('width', [5, 12, 30])
def test_lines_reach_the_edges_of_the_raster(trace, line, width):
    lines, _ = trace(roads((200, 400), width, line))
    truth = shapely.intersection(shapely.LineString(line), shapely.box(0, 0, 400, 200))
    assert len(lines) == 1
    assert shapely.length(lines[0]) == pytest.approx(truth.length, rel=0.02, abs=width / 2)
    assert distance(lines, truth) < 2 + width / 3
    for end in shapely.get_coordinates(lines[0])[[0, -1]]:
        assert min(*end, *(np.array([400, 200]) - end)) < 1e-6


def test_stubs_are_pruned(trace):
    truth = [(-50, 100), (450, 100)]
    stubs = [[(x, 100), (x, 100 + 14 * side)] for x, side in zip(range(40, 380, 37), [1, -1] * 5)]
    lines, _ = trace(roads((200, 400), 14, truth, *stubs))
    assert len(lines) == 1
    assert distance(lines, [(0, 100), (400, 100)]) < 4
    # A side road that is longer than the road is wide stays.
    lines, _ = trace(roads((200, 400), 14, truth, [(200, 100), (200, 150)]))
    assert len(lines) == 3


def test_patches_are_no_roads(trace):
    ids = roads((300, 400), 10, [(20, 250), (380, 250)])
    ids[50:90, 50:90] = ROAD
    ids[60:64, 200:207] = ROAD
    ids[5, 5] = ROAD
    lines, _ = trace(ids)
    assert len(lines) == 1
    lines, _ = trace(ids, min_length=500)
    assert len(lines) == 0


def test_cars_and_ragged_borders_do_not_matter(trace):
    rng = np.random.default_rng(3)
    ids = roads((200, 600), 13, [(-20, 100), (620, 100)])
    border = abs(np.arange(200) - 100) == 6
    ids[border] = rng.random((border.sum(), 600)) < 0.5
    for x in range(30, 600, 60):
        ids[98:102, x:x + 8] = 0
    lines, _ = trace(ids)
    assert len(lines) == 1
    assert distance(lines, [(0, 100), (600, 100)]) < 2.5


@pytest.mark.parametrize('profile, length, width', [
    (UTM, 150, 5),
    # 300 pixels of 2 m eastward; their usual side is the root of 2 m by 0.5 m.
    ({'crs': 'EPSG:32633', 'transform': Affine.translation(5e5, 5e6) @ Affine.rotation(30)
      @ Affine.scale(2, -0.5)}, 600, 10),
    # At 60° north on WGS 84 a degree of longitude is 55,800 m.
    ({'crs': 'EPSG:4326', 'transform': Affine(1e-5, 0, 10, 0, -5e-6, 60)}, 167.4, 5.58),
    # Across the pole, and the antimeridian, at the scales of these projections there.
    ({'crs': 'EPSG:3031', 'transform': Affine(50, 0, -10_000, 0, -50, 2_500)},
     300 * 50 * 1.02799, 500 * 1.028),
    ({'crs': 'EPSG:3832', 'transform': Affine(3, 0, 3339584.7 - 600, 0, -3, 8_399_737.9 + 150)},
     300 * 3 * 0.50125, 30 * 0.501),
    # An equal-area projection, whose unit is cos(30) / cos(60) eastward at 60 degrees.
    ({'crs': '+proj=cea +lat_ts=30 +R=6371000', 'transform': Affine(30, 0, 0, 0, -30, 6_371_000)},
     300 * 30 * 0.57735, 300),
    # On the Moon, eastward at 60 degrees.
    ({'crs': '+proj=eqc +R=1737400', 'transform': Affine(20, 0, 0, 0, -10, 1_819_401)},
     300 * 20 * 0.5, 100)])
def test_lengths_and_widths_are_those_on_the_ground(tmp_path, profile, length, width):
    ids = roads((100, 400), 10, [(50, 50), (350, 50)])
    labels = write_map(tmp_path / 'map.tif', ids, **profile)
    write_centerlines(labels, tmp_path / 'map.gpkg', [ROAD])
    _, lines, fields = read(tmp_path / 'map.gpkg')
    assert fields['length_m'][0] == pytest.approx(length, rel=0.02)
    assert fields['width_m'][0] == pytest.approx(width, rel=0.15)
    x, y = np.sort(np.array([profile['transform'] @ point for point in ((50, 50), (350, 50))]).T)
    np.testing.assert_allclose(np.sort(shapely.get_coordinates(lines[0])[[0, -1]].T), [x, y],
                               rtol=1e-5, atol=profile['transform'].a)


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_lines_stand_beside_the_polygons(tmp_path, suffix):
    ids = roads((200, 400), 10, [(20, 50), (380, 50)])
    ids[100:104, 40:360] = 2
    labels, out = write_map(tmp_path / 'map.tif', ids, **UTM), tmp_path / f'map{suffix}'
    write_vectors(labels, out)
    result = write_centerlines(labels, out, ['road', 2, 1])
    assert result['counts'] == {'road': 1, 'water': 1}
    assert (centerlines_path(out) == out) == (suffix == '.gpkg')
    _, lines, fields = read(centerlines_path(out), 'centerlines' if suffix == '.gpkg' else None)
    assert set(fields) == {'class_id', 'class', 'length_m', 'width_m', 'colour'}
    assert fields['class_id'].tolist() == [1, 2]
    assert fields['class'].tolist() == ['road', 'water']
    assert fields['colour'].tolist() == COLOURS[1:]
    np.testing.assert_allclose(fields['length_m'], [180, 160], rtol=0.02)
    if suffix == '.gpkg':
        # Written again, neither layer is lost or doubled.
        write_centerlines(labels, out, ['road'])
        assert sorted(pyogrio.list_layers(out)[:, 0]) == ['centerlines', 'polygons']
        assert len(read(out, 'centerlines')[1]) == 1
        assert len(read(out, 'polygons')[1]) == 3


def test_what_is_refused(tmp_path, monkeypatch):
    labels = write_map(tmp_path / 'map.tif', roads((50, 50), 5, [(5, 5), (40, 40)]))
    out = tmp_path / 'map.gpkg'
    for classes, options, words in ((['rail'], {}, "no class 'rail': give one of"),
                                    (['road'], {'simplify': 0}, 'simplify=0 is not a size')):
        with pytest.raises(UserError, match=words):
            write_centerlines(labels, out, classes, **options)
    monkeypatch.setitem(sys.modules, 'skimage.morphology', None)
    with pytest.raises(UserError, match=r'skimage .*bhvit_seg\[vector\]'):
        write_centerlines(labels, out, ['road'])


@pytest.mark.data
def test_roads_of_a_city(tmp_path, data_root):
    folder = data_root / 'epfl_roads' / 'annotations' / 'val'
    masks = sorted(folder.glob('*.png'))
    assert masks
    for mask in masks:
        with open_raster(mask) as dataset:
            ids = dataset.read(1)
        labels = write_map(tmp_path / 'map.tif', ids)
        write_centerlines(labels, tmp_path / 'map.gpkg', ['road'])
        _, lines, fields = read(tmp_path / 'map.gpkg')
        # On the road, all along it: the road is where a line of its width would draw it.
        on_road = rasterize(lines, out_shape=ids.shape, all_touched=False).astype(bool)
        assert np.mean(ids[on_road] == ROAD) > 0.97
        wide = [shapely.buffer(line, 0.6 * width) for line, width in zip(lines, fields['width_px'])]
        drawn = rasterize(wide, out_shape=ids.shape)
        assert np.mean(drawn[ids == ROAD] == 1) > 0.85
