"""Meta data that contradict the network or themselves are refused when a file is opened."""

import json

import pytest
from native.segmentors import build_segmentor

from bhvit_seg.errors import UserError
from bhvit_seg.native import PackedSegmentor
from bhvit_seg.native.export import fold_segmentor
from bhvit_seg.native.file_format import read_packed, write_packed
from bhvit_seg.native.meta import parse_meta

CLASSES, CHANNELS = 3, 4
META = {
    'name': 'Wege', 'classes': ['land', 'road', 'Fluß'],
    'palette': [[0, 0, 0], [255, 0, 9], [1, 2, 255]], 'window': [224, 320], 'channels': 4,
    'channel_order': ['red', 'green', 'blue', 'height'], 'color_type': 'unchanged',
    'test_scale': {'scale': [512, 256], 'keep_ratio': True}, 'align_corners': False,
    'lidar': {'channels': [2], 'fill': -1.5, 'nodata': None}, 'source': 'f00d', 'precision': {},
    'verification': None, 'created_by': 'bhvit_seg', 'of somebody': {'a': 1},
}


def parse(meta):
    content = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    return parse_meta(content, 'wege.bhv', CLASSES, CHANNELS, False)


def test_whole_and_partial_meta_data_are_read():
    assert parse(META) == META
    for name in META:
        less = {key: value for key, value in META.items() if key != name}
        assert parse(less) == less


@pytest.mark.parametrize('name, value', [
    ('classes', ['land', 'road']), ('classes', 'abc'), ('classes', None),
    ('palette', [[0, 0, 0], [1, 1, 1]]), ('palette', None),
    ('channels', 3), ('channels', '4'), ('channels', None),
    ('channel_order', ['red', 'green', 'blue']), ('align_corners', True), ('align_corners', None),
])
def test_meta_data_that_do_not_fit_are_named(name, value):
    with pytest.raises(UserError) as error:
        parse({**META, name: value})
    text = str(error.value)
    assert 'wege.bhv' in text and f' {name} ' in text and '\n' not in text and len(text) < 350


@pytest.mark.parametrize('content', [b'', b'\xff', b'[]', b'[' * 100_000, b'{"a": 1} x'])
def test_meta_data_that_are_not_an_object_are_refused(content):
    with pytest.raises(UserError) as error:
        parse(content)
    assert 'wege.bhv' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('name, value, expected', [
    ('palette', [[7, 7, 7]] * 5, '6'), ('classes', ['a', 'b'], '6'), ('channels', 3, '5'),
    ('align_corners', False, 'True')])
def test_file_is_refused_by_its_own_network(name, value, expected, engine, tmp_path):
    path, tensors = tmp_path / 'own.bhv', fold_segmentor(
        build_segmentor(classes=6, in_channels=5, align_corners=True))
    write_packed(path, tensors, {'name': 'own', 'channels': 5, 'align_corners': True})
    assert PackedSegmentor(path).meta == read_packed(path).meta
    write_packed(path, tensors, {'name': 'own', name: value})
    with pytest.raises(UserError, match=f'own.bhv .*{name} .*{expected}'):
        PackedSegmentor(path)
