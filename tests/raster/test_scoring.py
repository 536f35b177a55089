import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from raster.rasters import write_raster
from rasterio.transform import Affine

from bhvit_seg.errors import UserError
from bhvit_seg.raster import scoring
from bhvit_seg.raster.opening import open_quietly
from bhvit_seg.raster.scoring import score_raster

NAMES = ('land', 'road', 'water')
PLACE = Affine(0.5, 0.1, 400_000, 0.1, -0.4, 5_000_000)


def write(path: Path, ids, nodata=None, names=(), **options) -> Path:
    ids = np.asarray(ids)
    write_raster(path, ids if ids.ndim == 3 else ids[None], nodata=nodata,
                 **{'crs': 'EPSG:32750', 'transform': PLACE, **options})
    with open_quietly(path, 'r+') as dataset:
        dataset.update_tags(1, **{f'CLASS_{label}': name for label, name in enumerate(names)})
    return path


def plain_scores(predicted, labelled, ignore_nodata: bool) -> dict:
    """Scores from pairs counted one by one; 255 is none in either."""
    pairs = [(true, found) for true, found in zip(labelled.flat, predicted.flat)
             if true != 255 and not (ignore_nodata and found == 255)]

    def share(part, whole):
        return 100 * part / whole if whole else None

    classes = {}
    for label, name in enumerate(NAMES):
        hits = pairs.count((label, label))
        true, found = ([pair[side] for pair in pairs].count(label) for side in (0, 1))
        classes[name] = {
            'IoU': share(hits, true + found - hits), 'F1': share(2 * hits, true + found),
            'Precision': share(hits, found), 'Recall': share(hits, true)}

    def mean(column):
        return np.mean([scores[column] for scores in classes.values()
                        if scores[column] is not None])

    return {'classes': classes, 'summary': {
        'aAcc': 100 * np.mean([true == found for true, found in pairs]),
        'mIoU': mean('IoU'), 'mFscore': mean('F1'), 'mAcc': mean('Recall')}}


@st.composite
def pairs_of_maps(draw) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.sampled_from([(1, 1), (1, 13), (9, 1), (7, 12)]))
    ids = arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255]),
                        fill=st.nothing())
    predicted, labelled = draw(ids), draw(ids)
    row, column = (draw(st.integers(0, length - 1)) for length in shape)
    predicted[row, column], labelled[row, column] = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    return predicted, labelled


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
          max_examples=40)
@given(maps=pairs_of_maps(), ignore_nodata=st.booleans())
def test_scores_are_those_of_pixels_counted_one_by_one(maps, ignore_nodata, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, 'WINDOW', (3, 5))
    predicted, labelled = maps
    result = score_raster(write(tmp_path / 'p.tif', predicted, 255, NAMES),
                          write(tmp_path / 'l.tif', labelled), ignore_nodata=ignore_nodata)
    expected = plain_scores(predicted, labelled, ignore_nodata)
    assert list(result['classes']) == list(NAMES)
    for name in NAMES:
        assert result['classes'][name] == pytest.approx(expected['classes'][name])
    assert result['summary'] == pytest.approx(expected['summary'])
    for true in range(3):
        here = predicted[labelled == true]
        assert result['confusion'][true] == [int((here == found).sum()) for found in range(3)]
        assert result['unpredicted'][true] == (here == 255).sum()
    assert result['unlabelled'] == (labelled == 255).sum()


def test_large_maps_are_counted_exactly_and_not_held(tmp_path):
    side = 4097  # its square is more than float32 counts in ones
    ids = np.zeros((side, side), np.uint8)
    options = dict(compress='deflate', tiled=True, zlevel=1)
    labels = write(tmp_path / 'l.tif', ids, **options)
    ids[-1, -1] = 1
    prediction = write(tmp_path / 'p.tif', ids, **options)
    tracemalloc.start()
    try:
        result = score_raster(prediction, labels, ['a', 'b'])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result['confusion'] == [[side**2 - 1, 1], [0, 0]]
    assert result['classes']['a']['IoU'] == 100 * (side**2 - 1) / side**2
    assert result['classes']['b'] == {'IoU': 0, 'F1': 0, 'Precision': 0, 'Recall': None}
    assert peak < 4 * side**2


@pytest.mark.parametrize('dtype, nodata', [
    ('int16', -9999), ('int32', 70000), ('uint16', 65535), ('uint8', 0), ('int8', -1),
    ('uint64', 70000)])
def test_nodata_of_any_integer_is_no_label(dtype, nodata, tmp_path):
    labels = write(tmp_path / 'l.tif', np.array([[1, nodata, 2, 127]], dtype), nodata)
    result = score_raster(write(tmp_path / 'p.tif', np.array([[1, 0, 0, 0]], np.uint8)), labels,
                          NAMES, ignore=127)
    assert result['unlabelled'] == 2
    assert result['confusion'] == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_masked_labels_are_none(tmp_path):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        labels = write(tmp_path / 'l.tif', np.array([[1, 1, 0]], np.uint8))
        with rasterio.open(labels, 'r+') as dataset:
            dataset.write_mask(np.array([[True, False, True]]))
    result = score_raster(write(tmp_path / 'p.tif', np.array([[1, 1, 1]], np.uint8)), labels, NAMES)
    assert (result['unlabelled'], result['summary']['aAcc']) == (1, 50)


@pytest.mark.parametrize('dtype, ignore, nodata', [
    ('uint8', 255, None), ('uint8', 255, 255), ('int16', -9, None), ('uint8', 9, 255)])
def test_ids_that_are_mapped_to_a_class_are_labels(tmp_path, dtype, ignore, nodata):
    """Though they are the ignored id, or the nodata value."""
    old = ignore if nodata is None else nodata
    label_map = {old: 1, 40: ignore} if old >= 0 else {30: 1, 40: ignore}
    given = old if old >= 0 else 30
    labels = write(tmp_path / 'l.tif', np.array([[given, 2, 40, given, 2]], dtype), nodata)
    prediction = write(tmp_path / 'p.tif', np.array([[1, 2, 2, 2, 1]], np.uint8))
    result = score_raster(prediction, labels, NAMES, ignore, label_map)
    assert result['confusion'] == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]
    assert result['unlabelled'] == 1
    assert result['classes']['road']['IoU'] == pytest.approx(100 / 3)


@pytest.mark.parametrize('other', [
    dict(crs=None), dict(transform=Affine.identity()), dict(crs=None, transform=None),
    dict(transform=Affine(0.5, 0.1, 400_000.002, 0.1, -0.4, 5_000_000))])
def test_rasters_that_do_not_say_where_they_lie_are_taken_as_they_are(other, tmp_path, recwarn):
    ids = np.array([[1, 0]], np.uint8)
    for prediction, labels in (({}, other), (other, {}), (other, other)):
        result = score_raster(write(tmp_path / 'p.tif', ids, names=NAMES, **prediction),
                              write(tmp_path / 'l.tif', ids, **labels))
        assert result['summary']['aAcc'] == 100
    assert [str(warning.message) for warning in recwarn] == []


IDS = np.array([[0, 1], [2, 1]], np.uint8)


@pytest.mark.parametrize('prediction, labels, options, words', [
    ({}, dict(ids=IDS[:1]), {}, '1x2 pixels .* 2x2'),
    ({}, dict(crs='EPSG:32649'), {}, 'EPSG:32649, .* EPSG:32750'),
    ({}, dict(transform=Affine(0.5, 0.1, 400_001, 0.1, -0.4, 5_000_000)), {},
     'pixels beside'),
    (dict(names=()), {}, {}, 'does not name its classes.*--classes'),
    ({}, {}, dict(classes=['a', 'b', 'a']), 'a twice'),
    ({}, {}, dict(classes=['a', 'b']), 'l.tif holds the id 2 at row 1, column 0'),
    ({}, dict(ids=IDS.astype(np.int16) - 1), {}, 'holds the id -1 at row 0, column 0'),
    ({}, dict(ids=IDS.astype(np.uint64) + 65536), {}, 'holds the id 65536 at row 0, column 0'),
    ({}, dict(ids=np.stack([IDS] * 3)), {}, 'has 3 bands of uint8'),
    (dict(ids=IDS.astype(np.float32)), {}, {}, 'has 1 band of float32'),
    (dict(ids=np.full((2, 2), 255, np.uint8), nodata=255), {}, dict(ignore_nodata=True),
     'no pixel of .* can be scored'),
    ({}, {}, dict(label_map={0: 3}), '--label-map 0:3'),
])
def test_rasters_that_do_not_fit_are_refused(prediction, labels, options, words, tmp_path):
    write(tmp_path / 'p.tif', **{'ids': IDS, 'names': NAMES, **prediction})
    write(tmp_path / 'l.tif', **{'ids': IDS, **labels})
    with pytest.raises(UserError, match=words) as error:
        score_raster(tmp_path / 'p.tif', tmp_path / 'l.tif', **options)
    assert '\n' not in str(error.value)
