"""The packed model on disk (``.bhv``): what the exporter writes and the engine reads.

Little-endian; in this order::

    bytes  0-7   magic, b'BHVITSEG'
           8     u32  version of the format
          12     u32  byte order mark, 0x01020304
          16     u64  size of the whole file in bytes
          24     u32  CRC-32 of everything behind it
          28     u32  number of tensors
          32     u32  length of the meta data, JSON in UTF-8, which begin at byte 40
          36     u32  length of the directory, which follows them
    then the tensors, each at a multiple of 16 bytes

A directory entry is the length of the name (u16), the name (ASCII), the type (u8, the index in
:data:`TYPES`), the number of dimensions (u8, 1 to 4), the dimensions (u32 each), and where the
tensor begins (u64). ``docs/packed.md`` says what the tensors mean. Needs NumPy alone.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_atomically

MAGIC = b'BHVITSEG'
VERSION = 1
BYTE_ORDER_MARK = 0x01020304
TYPES = (np.dtype('<f4'), np.dtype('<f2'), np.dtype('<u4'), np.dtype('<i4'))
ALIGNMENT = 16
WORD_BITS = 32
_AGAIN = 'export it again with tools/export_packed.py'

_HEADER = struct.Struct('<8sIIQIIII')
_CHECKED_FROM = 28
_MAX_DIMS = 4
# What is multiplied in full precision, and what is added once; all else sets thresholds of bits.
_NARROWABLE = re.compile(r'(stem|down\d)\.(weight|position)|head\.classifier\.weight')


class PackedModel(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: Arrays by name, in the order of the file.
        meta: Names of the classes, palette and whatever else is no arithmetic.
    """

    tensors: dict[str, np.ndarray]
    meta: dict[str, Any]


def pack_bits(positive: np.ndarray) -> np.ndarray:
    """Pack booleans ``(..., inputs)`` into uint32 words ``(..., ⌈inputs / 32⌉)``.

    Input ``k`` is bit ``k % 32`` of word ``k // 32``; bits behind the last input are 0.
    """
    inputs = positive.shape[-1]
    padding = [(0, 0)] * (positive.ndim - 1) + [(0, -inputs % WORD_BITS)]
    octets = np.packbits(np.pad(positive, padding), axis=-1, bitorder='little')
    return np.ascontiguousarray(octets).view('<u4')


def unpack_bits(words: np.ndarray, inputs: int) -> np.ndarray:
    """Return ±1 ``(..., inputs)`` int8 of the words that :func:`pack_bits` made."""
    octets = np.ascontiguousarray(words, '<u4').view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=inputs, bitorder='little')
    return bits.astype(np.int8) * 2 - 1


def may_be_narrow(name: str) -> bool:
    """Whether the tensor of this name may be stored in 16 bits."""
    return _NARROWABLE.fullmatch(name) is not None


def write_packed(path: str | os.PathLike, tensors: Mapping[str, np.ndarray],
                 meta: Mapping[str, Any]) -> None:
    """Write a packed model; the file appears under its name when it is whole.

    Args:
        path: The file.
        tensors: float16 (where :func:`may_be_narrow`), float32, float64 (rounded to float32),
            uint32 and int32 arrays by name.
        meta: What JSON can hold.
    """
    meta_bytes = json.dumps(meta, ensure_ascii=False, sort_keys=True).encode()
    stored = {name: _storable(name, array) for name, array in tensors.items()}
    directory_length = sum(2 + len(name) + 2 + 4 * array.ndim + 8
                           for name, array in stored.items())
    at = _HEADER.size + len(meta_bytes) + directory_length
    directory, parts = b'', []
    for name, array in stored.items():
        padding = -at % ALIGNMENT
        directory += struct.pack('<H', len(name)) + name.encode('ascii')
        directory += struct.pack(f'<BB{array.ndim}IQ', TYPES.index(array.dtype), array.ndim,
                                 *array.shape, at + padding)
        parts += [bytes(padding), array.tobytes()]
        at += padding + array.nbytes
    assert len(directory) == directory_length
    body = b''.join(parts)
    counts = struct.pack('<III', len(stored), len(meta_bytes), len(directory))
    checksum = zlib.crc32(body, zlib.crc32(counts + meta_bytes + directory))
    head = struct.pack('<8sIIQI', MAGIC, VERSION, BYTE_ORDER_MARK, at, checksum)
    with write_atomically(path) as partial:
        partial.write_bytes(b''.join([head, counts, meta_bytes, directory, body]))


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    stored = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
    assert stored.dtype in TYPES and 1 <= stored.ndim <= _MAX_DIMS, (name, stored.dtype)
    assert stored.dtype != np.float16 or may_be_narrow(name), name
    return stored


def read_packed(path: str | os.PathLike) -> PackedModel:
    """Read a packed model.

    Raises:
        UserError: The file is missing, no packed model, damaged, or of another version.
    """
    path = Path(os.fsdecode(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'the packed model {path} cannot be read ({error.strerror}): give the '
                        'path of a file that tools/export_packed.py wrote') from error
    tensors, meta_length, directory_length = _checked_header(content, path)
    meta_end = _HEADER.size + meta_length
    try:
        meta = json.loads(content[_HEADER.size:meta_end].decode())
        if not isinstance(meta, dict):
            raise ValueError('its meta data are no object')
        directory = content[meta_end:meta_end + directory_length]
        return PackedModel(_read_tensors(content, directory, tensors), meta)
    except (ValueError, TypeError, struct.error, IndexError, RecursionError) as error:
        raise UserError(f'{path} has the checksum of a packed model but not its structure '
                        f'({error}): {_AGAIN}') from error


def _checked_header(content: bytes, path: Path) -> tuple[int, int, int]:
    """Return the number of tensors and the lengths of meta data and directory."""
    if not content.startswith(MAGIC):
        raise UserError(f'{path} is no packed model (it does not begin with {MAGIC.decode()}): '
                        'give a file that tools/export_packed.py wrote')
    if len(content) < _HEADER.size:
        raise UserError(f'{path} is truncated: it has {len(content)} bytes, fewer than the '
                        f'header of a packed model; copy it again')
    _, version, mark, size, checksum, tensors, meta_length, directory_length = (
        _HEADER.unpack_from(content))
    if mark != BYTE_ORDER_MARK:
        raise UserError(f'{path} has the byte order mark {mark:#010x} instead of '
                        f'{BYTE_ORDER_MARK:#010x}: {_AGAIN}')
    if version != VERSION:
        raise UserError(f'{path} is of version {version} of the format, and this bhvit_seg reads '
                        f'version {VERSION}: {_AGAIN}')
    if size != len(content):
        raise UserError(f'{path} has {len(content)} bytes and should have {size}: it is '
                        'truncated or damaged, copy it again')
    if zlib.crc32(content[_CHECKED_FROM:]) != checksum:
        raise UserError(f'{path} is damaged (its checksum is wrong): copy it again')
    if _HEADER.size + meta_length + directory_length > size:
        raise UserError(f'{path} announces more meta data and directory than it has bytes: '
                        f'{_AGAIN}')
    return tensors, meta_length, directory_length


def _read_tensors(content: bytes, directory: bytes, count: int) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    at = 0
    for _ in range(count):
        length, = struct.unpack_from('<H', directory, at)
        name = directory[at + 2:at + 2 + length].decode('ascii')
        at += 2 + length
        kind, dims = struct.unpack_from('<BB', directory, at)
        if not 1 <= dims <= _MAX_DIMS:
            raise ValueError(f'{name!r} has {dims} dimensions')
        *shape, offset = struct.unpack_from(f'<{dims}IQ', directory, at + 2)
        at += 2 + 4 * dims + 8
        dtype = TYPES[kind]
        elements = int(np.prod(shape, dtype=object))
        if offset % ALIGNMENT or offset + elements * dtype.itemsize > len(content):
            raise ValueError(f'{name!r} lies outside the file')
        if name in tensors or (dtype == np.float16 and not may_be_narrow(name)):
            raise ValueError(f'{name!r} is there twice or in a type it may not have')
        tensors[name] = np.frombuffer(content, dtype, elements, offset).reshape(shape)
    if at != len(directory):
        raise ValueError(f'the directory is longer than its {count} entries')
    return tensors
