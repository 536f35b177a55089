"""What is written is read back, as documented, byte by byte; damage is named."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bhvit_seg.errors import UserError
from bhvit_seg.native.file_format import (
    pack_bits,
    read_packed,
    unpack_bits,
    write_packed,
)

TENSORS = {
    'architecture': np.arange(23, dtype=np.int32),
    'stem.weight': np.linspace(-1, 1, 24).reshape(2, 3, 2, 2).astype(np.float16),
    'out0.scale': np.array([np.pi, -0.0, 1e-30]),
    'head.fusion.bits': np.array([[1, 2**32 - 1], [0, 7]], np.uint32),
}
META = {'name': 'Straße', 'classes': ['background', 'road'], 'window': None}


@pytest.fixture
def path(tmp_path):
    write_packed(tmp_path / 'model.bhv', TENSORS, META)
    return tmp_path / 'model.bhv'


def sealed(content: bytearray) -> bytes:
    """The content with its size and checksum made right."""
    struct.pack_into('<Q', content, 16, len(content))
    struct.pack_into('<I', content, 24, zlib.crc32(content[28:]))
    return bytes(content)


def sentence(path):
    with pytest.raises(UserError) as error:
        read_packed(path)
    assert '\n' not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def test_tensors_and_meta_data_are_read_back(path):
    tensors, meta = read_packed(path)
    assert meta == META and set(tensors) == set(TENSORS)
    for name, array in TENSORS.items():
        expected = array.astype(np.float32) if array.dtype == np.float64 else array
        assert tensors[name].dtype == expected.dtype
        assert tensors[name].tobytes() == expected.tobytes()
        assert tensors[name].shape == expected.shape


def test_layout_is_the_documented_one(path):
    content = path.read_bytes()
    assert content[:8] == b'BHVITSEG'
    assert struct.unpack_from('<II', content, 8) == (1, 0x01020304)
    assert content[12:16] == b'\x04\x03\x02\x01'
    size, checksum, count, meta_length, directory_length = struct.unpack_from('<QIIII', content, 16)
    assert size == len(content) and checksum == zlib.crc32(content[28:]) and count == 4
    assert json.loads(content[40:40 + meta_length]) == META
    at, end = 40 + meta_length, 40 + meta_length + directory_length
    for (name, array), kind in zip(TENSORS.items(), (3, 1, 0, 2)):
        length, = struct.unpack_from('<H', content, at)
        assert content[at + 2:at + 2 + length].decode() == name
        at += 2 + length
        assert struct.unpack_from('<BB', content, at) == (kind, array.ndim)
        *dims, offset = struct.unpack_from(f'<{array.ndim}IQ', content, at + 2)
        at += 2 + 4 * array.ndim + 8
        assert tuple(dims) == array.shape and offset % 16 == 0 and offset >= end
    assert at == end


def test_same_content_gives_the_same_bytes(path, tmp_path):
    write_packed(tmp_path / 'again.bhv', TENSORS, dict(reversed(META.items())))
    assert (tmp_path / 'again.bhv').read_bytes() == path.read_bytes()


def test_missing_and_foreign_files_are_named(tmp_path):
    assert 'cannot be read' in sentence(tmp_path / 'none.bhv')
    assert 'cannot be read' in sentence(tmp_path)
    for content in (b'PK\x03\x04' * 100, b'', b'BHVITSE'):
        (tmp_path / 'x.bhv').write_bytes(content)
        assert 'not a packed model' in sentence(tmp_path / 'x.bhv')


def test_other_lengths_are_noticed(path):
    content = path.read_bytes()
    for length in range(8, len(content)):
        path.write_bytes(content[:length])
        assert 'damaged' in sentence(path)
    path.write_bytes(content + b'\0')
    assert f'{len(content) + 1} bytes instead of {len(content)}' in sentence(path)


def test_every_flipped_bit_is_noticed(path):
    content = path.read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        sentence(path)


@pytest.mark.parametrize('at, form, value, words', [
    (8, '<I', 2, 'version 2'), (12, '>I', 0x01020304, 'byte order'), (28, '<I', 5, ''),
    (28, '<I', 2**32 - 1, ''), (32, '<I', 7, ''), (36, '<I', 3, '')])
def test_wrong_header_with_the_right_checksum_is_to_be_exported_again(at, form, value, words, path):
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at, value)
    path.write_bytes(sealed(content))
    text = sentence(path)
    assert words in text and 'export it again' in text


def offsets_of(content):
    """Where the offset of each entry stands, by name."""
    count, meta_length = struct.unpack_from('<II', content, 28)
    at, places = 40 + meta_length, {}
    for _ in range(count):
        length, = struct.unpack_from('<H', content, at)
        kind = at + 2 + length
        places[content[at + 2:kind].decode()] = kind + 2 + 4 * content[kind + 1]
        at = kind + 2 + 4 * content[kind + 1] + 8
    return places


@pytest.mark.parametrize('change', [
    # the second of two that share bytes, one within the other, in its own directory or header
    lambda offsets, size: offsets.update({'out0.scale': offsets['stem.weight']}),
    lambda offsets, size: offsets.update({'stem.weight': offsets['architecture'] + 16}),
    lambda offsets, size: offsets.update({'head.fusion.bits': 48}),
    lambda offsets, size: offsets.update({'out0.scale': offsets['out0.scale'] + 4}),
    lambda offsets, size: offsets.update({'out0.scale': 2**64 - 16}),
])
def test_tensors_that_share_bytes_or_lie_elsewhere_are_refused(change, path):
    content = bytearray(path.read_bytes())
    places = offsets_of(content)
    offsets = {name: struct.unpack_from('<Q', content, at)[0] for name, at in places.items()}
    change(offsets, len(content))
    for name, at in places.items():
        struct.pack_into('<Q', content, at, offsets[name])
    path.write_bytes(sealed(content))
    assert 'damaged' in sentence(path)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 3), st.randoms(use_true_random=False))
def test_bits_come_back_and_the_tail_is_clear(inputs, outputs, random):
    positive = np.array([[random.random() < 0.5 for _ in range(inputs)] for _ in range(outputs)],
                        bool).reshape(outputs, inputs)
    words = pack_bits(positive)
    assert words.dtype == np.uint32 and words.shape == (outputs, -(-inputs // 32))
    assert np.array_equal(unpack_bits(words, inputs) > 0, positive)
    for k in range(words.shape[1] * 32):
        bit = words[:, k // 32] >> np.uint32(k % 32) & 1
        assert np.array_equal(bit, positive[:, k] if k < inputs else np.zeros(outputs))
