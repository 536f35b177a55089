"""Mask pixels to ids and labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from bhvit_seg.datasets.masks import MaskEncoding, label_table
from bhvit_seg.errors import UserError

CODE = {
    'ids': lambda value: value,
    'binary255': {0: 0, 255: 1}.get,
    'threshold': lambda value: int(value >= 128),
}


@pytest.mark.parametrize('encoding', CODE)
@given(mask=arrays.arrays(np.uint8, (5, 4)), gaps=arrays.arrays(bool, (5, 4)))
def test_named_encodings(encoding, mask, gaps):
    for coloured in (mask, np.dstack([mask] * 3)):  # grey saved as colour means the same
        ids, unknown = MaskEncoding(encoding).decode(coloured, gaps)
        truth = [None if gap else CODE[encoding](value)
                 for value, gap in zip(mask.ravel().tolist(), gaps.ravel())]
        assert ids.dtype == np.uint8
        assert ids.ravel().tolist() == [255 if id_ is None else id_ for id_ in truth]
        assert sum(unknown.values()) == truth.count(None) - gaps.sum()


@pytest.mark.parametrize('mask, ids, unknown', [
    (np.uint16([[1, 256, 65535, 256]]), [[1, 255, 255, 255]], {'256': 2, '65535': 1}),
    (np.float32([[1.0, 0.5, -1.0]]), [[1, 255, 255]], {'-1': 1, '0.5': 1}),
    (np.uint8([[[255, 16, 0], [0, 0, 0], [0, 0, 0]]]), [[255] * 3], {'#000000': 2, '#FF1000': 1}),
])
def test_what_is_no_id_is_counted(mask, ids, unknown):
    found, counts = MaskEncoding('ids').decode(mask)
    assert found.tolist() == ids and list(counts.items()) == list(unknown.items())


@given(arrays.arrays(np.uint8, (4, 5), elements=st.integers(0, 3)))
def test_colours_round_trip(labels):
    colours = {'#3C1098': 0, '8429F6': 'road', '#6ec1e4': 'ignore', '#000000': 7}
    rgb = np.array([[0x3C, 0x10, 0x98], [0x84, 0x29, 0xF6], [0x6E, 0xC1, 0xE4], [0, 0, 0]],
                   np.uint8)
    ids, unknown = MaskEncoding(colours, classes=('background', 'road')).decode(rgb[labels])
    assert (ids == np.array([0, 1, 255, 7])[labels]).all() and not unknown


@pytest.mark.parametrize('mask', [np.uint8([[[2, 2, 2], [255, 0, 0]]]), np.uint8([[2, 9]])])
def test_unknown_colour_is_counted_or_covered_by_the_star(mask):
    colours = {'#FF0000': 1, '#090909': 1}
    ids, unknown = MaskEncoding(colours).decode(mask)
    assert ids.tolist() == [[255, 1]] and unknown == {'#020202': 1}
    ids, unknown = MaskEncoding({**colours, '*': 0}).decode(mask)
    assert ids.tolist() == [[0, 1]] and not unknown


@pytest.mark.parametrize('encoding', ['auto', None, {'red': 1}, {'#12345': 1}, {'#123456': 256},
                                      {'#123456': 'river'}, {'#123456': True}])
def test_wrong_encoding_is_refused(encoding):
    with pytest.raises(UserError, match='mask_encoding'):
        MaskEncoding(encoding, classes=('background', 'road'))


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 255, 1: 0, 2: 1, 3: 2}])
def test_labels_are_those_of_mmseg(tmp_path, reduce_zero_label, label_map):
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ids).save(tmp_path / 'a.png')
    truth = LoadAnnotations()(dict(seg_map_path=str(tmp_path / 'a.png'), seg_fields=[],
                                   reduce_zero_label=reduce_zero_label, label_map=label_map))
    assert (label_table(reduce_zero_label, label_map)[ids] == truth['gt_seg_map']).all()
