"""The packed model on disk (``.bhv``): what the exporter writes and the engine parses.

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
import math
import os
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bhvit_seg.fileio import PACKED_MAGIC, write_atomically

from .engine import open_file
from .meta import decode_meta

VERSION = 1
BYTE_ORDER_MARK = 0x01020304
TYPES = (np.dtype('<f4'), np.dtype('<f2'), np.dtype('<u4'), np.dtype('<i4'))
ALIGNMENT = 16
WORD_BITS = 32
HEADER_BYTES = 40
MAX_DIMS = 4
# Full-precision factors, and position embeddings; all others determine thresholds of bits.
_NARROWABLE = re.compile(r'(stem|down\d)\.(weight|position)|head\.classifier\.weight')


class PackedModel(NamedTuple):
    tensors: dict[str, np.ndarray]
    meta: dict[str, Any]


def pack_bits(positive: np.ndarray) -> np.ndarray:
    """Pack booleans ``(..., inputs)`` into uint32 words ``(..., ⌈inputs / 32⌉)``: input ``k`` is
    bit ``k % 32`` of word ``k // 32``; unused bits are 0."""
    inputs = positive.shape[-1]
    padding = [(0, 0)] * (positive.ndim - 1) + [(0, -inputs % WORD_BITS)]
    octets = np.packbits(np.pad(positive, padding), axis=-1, bitorder='little')
    return np.ascontiguousarray(octets).view('<u4')


def unpack_bits(words: np.ndarray, inputs: int) -> np.ndarray:
    """Return ±1 ``(..., inputs)`` int8 from the words of :func:`pack_bits`."""
    octets = np.ascontiguousarray(words, '<u4').view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=inputs, bitorder='little')
    return bits.astype(np.int8) * 2 - 1


def may_be_narrow(name: str) -> bool:
    return _NARROWABLE.fullmatch(name) is not None


def write_packed(path: str | os.PathLike, tensors: Mapping[str, np.ndarray],
                 meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Write a packed model atomically; return the tensors as stored.

    Args:
        tensors: float16 (where :func:`may_be_narrow`), float32, float64 (rounded to float32),
            uint32 and int32 arrays by name.
        meta: Values for JSON.
    """
    meta_bytes = json.dumps(meta, ensure_ascii=False, sort_keys=True).encode()
    stored = {name: _storable(name, array) for name, array in tensors.items()}
    directory_length = sum(12 + len(name) + 4 * array.ndim for name, array in stored.items())
    at = HEADER_BYTES + len(meta_bytes) + directory_length
    directory, parts = b'', []
    for name, array in stored.items():
        padding = -at % ALIGNMENT
        directory += struct.pack('<H', len(name)) + name.encode('ascii')
        directory += struct.pack(f'<BB{array.ndim}IQ', TYPES.index(array.dtype), array.ndim,
                                 *array.shape, at + padding)
        parts += [bytes(padding), array.tobytes()]
        at += padding + array.nbytes
    assert len(directory) == directory_length
    counts = struct.pack('<III', len(stored), len(meta_bytes), len(directory))
    sealed = b''.join([counts, meta_bytes, directory, *parts])
    head = struct.pack('<8sIIQI', PACKED_MAGIC, VERSION, BYTE_ORDER_MARK, at, zlib.crc32(sealed))
    with write_atomically(path) as partial:
        partial.write_bytes(head + sealed)
    return stored


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    stored = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
    assert stored.dtype in TYPES and 1 <= stored.ndim <= MAX_DIMS, (name, stored.dtype)
    assert stored.dtype != np.float16 or may_be_narrow(name), name
    return stored


def read_packed(path: str | os.PathLike) -> PackedModel:
    """Return the content of a file, as the engine parses it; a UserError if it is not a whole
    packed model of this version, or the engine is not built."""
    file = open_file(path)
    tensors = {key: np.frombuffer(file, TYPES[kind], math.prod(shape), offset).reshape(shape)
               for key, (kind, shape, offset) in file.tensors.items()}
    return PackedModel(tensors, decode_meta(file.meta, os.fsdecode(path)))
