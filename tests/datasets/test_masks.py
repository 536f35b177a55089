"""Mask pixels to ids and labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from bhvit_seg.datasets.masks import MaskEncoding, label_table
from bhvit_seg.errors import UserError

BYTES = arrays.arrays(np.uint8, (5, 4))


@given(BYTES)
def test_ids_are_kept(mask):
    ids, unknown = MaskEncoding('ids').decode(mask)
    assert (ids == mask).all() and not unknown


def test_ids_beyond_8_bits_do_not_wrap():
    ids, unknown = MaskEncoding('ids').decode(np.array([[1, 256, 65535, 256]], np.uint16))
    assert ids.tolist() == [[1, 255, 255, 255]]
    assert unknown == {'256': 2, '65535': 1}


def test_fractional_ids_are_unknown():
    ids, unknown = MaskEncoding('ids').decode(np.array([[1.0, 0.5, -1.0]], np.float32))
    assert ids.tolist() == [[1, 255, 255]] and unknown == {'-1': 1, '0.5': 1}


def test_grey_saved_as_colour_is_read_as_ids():
    grey = np.array([[0, 1], [1, 0]], np.uint8)
    assert (MaskEncoding('ids').decode(np.dstack([grey] * 3))[0] == grey).all()


def test_colour_mask_read_as_ids_names_the_colours():
    mask = np.zeros((2, 2, 3), np.uint8)
    mask[0, 0] = (255, 16, 0)
    ids, unknown = MaskEncoding('ids').decode(mask)
    assert (ids == 255).all() and unknown == {'#000000': 3, '#FF1000': 1}


@given(BYTES)
def test_binary255_knows_two_values(mask):
    ids, unknown = MaskEncoding('binary255').decode(mask)
    for value, label in zip(mask.ravel().tolist(), ids.ravel().tolist()):
        assert label == {0: 0, 255: 1}.get(value, 255)
    assert sum(unknown.values()) == ((mask > 0) & (mask < 255)).sum()


@given(BYTES)
def test_threshold_is_at_128(mask):
    ids, unknown = MaskEncoding('threshold').decode(mask)
    assert (ids == [[int(v >= 128) for v in row] for row in mask.tolist()]).all() and not unknown


@given(arrays.arrays(np.uint8, (4, 5), elements=st.integers(0, 3)))
def test_colours_round_trip(labels):
    colours = {'#3C1098': 0, '8429F6': 'road', '#6ec1e4': 'ignore', '#000000': 7}
    rgb = np.array([[0x3C, 0x10, 0x98], [0x84, 0x29, 0xF6], [0x6E, 0xC1, 0xE4], [0, 0, 0]],
                   np.uint8)
    ids, unknown = MaskEncoding(colours, classes=('background', 'road')).decode(rgb[labels])
    assert (ids == np.array([0, 1, 255, 7])[labels]).all() and not unknown


def test_unknown_colour_is_counted_or_covered_by_the_star():
    mask = np.array([[[1, 2, 3], [255, 0, 0]]], np.uint8)
    ids, unknown = MaskEncoding({'#FF0000': 1}).decode(mask)
    assert ids.tolist() == [[255, 1]] and unknown == {'#010203': 1}
    ids, unknown = MaskEncoding({'#FF0000': 1, '*': 0}).decode(mask)
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
