"""Damage of JPEG data that decoders only warn about while they fill in made-up pixels."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

HARMLESS_BYTES = 16
END_MARK = b'\xff\xd9'
ZEROS = re.compile(rb'\0{32,}')
_LIBRARY_LINE = re.compile(rb'JPEG|JPEGLib|libpng|SOS|Adobe|TIFF', re.IGNORECASE)
_GDAL_PREFIX = re.compile(r'^CPLE_\w+(:| in )|in JPEGLib:| \(this warning can be.*')
_stderr_lock = threading.Lock()


@contextlib.contextmanager
def collect_stderr() -> Iterator[list[str]]:
    """Yield a list for what C image libraries write to stderr; other output passes through."""
    lines: list[str] = []
    with _stderr_lock, contextlib.ExitStack() as stack:
        try:
            saved = os.dup(2)
        except OSError:  # stderr is closed
            saved = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, saved)
        file = stack.enter_context(tempfile.TemporaryFile())
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            file.seek(0)
            for line in file:
                if _LIBRARY_LINE.search(line):
                    lines.append(line.decode(errors='replace').strip())
                else:
                    os.write(saved, line)


def _renew_lock() -> None:
    # A thread that held it when the process was forked does not exist here.
    global _stderr_lock
    _stderr_lock = threading.Lock()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_renew_lock)


def loses_pixels(message: str, content: bytes = b'') -> bool:
    """Whether a message of libjpeg or of GDAL's JPEG decoder says that pixels are lost.

    A few extra bytes before the end of an image, as some cameras write them, are harmless; where
    the ``content`` of the file is known, only if they all have one value. Others are left over
    after a decoding error.
    """
    extraneous = re.search(r'(\d+) extraneous bytes before marker 0x(\w+)', message)
    if not extraneous:
        return 'orrupt JPEG' in message or 'Premature end' in message
    end = content.rfind(END_MARK)
    harmless = (len(set(content[end - int(extraneous[1]):end])) <= 1 if content
                else int(extraneous[1]) <= HARMLESS_BYTES)
    return extraneous[2] != 'd9' or not harmless


def find_zeroed_part(content: bytes) -> str | None:
    """Describe the part of a baseline JPEG file that was overwritten with zeros, or return None.

    Zeros are valid codes. Unless they encode the end of a block, they stand for runs of equal
    coefficients, which no photograph has. Components of a scan are interleaved, so checking luma is
    enough.
    """
    first_symbols, components, at = {}, None, 2
    with contextlib.suppress(IndexError):
        while content[at] == 0xff and content[at + 1] != 0xda:
            marker, length = content[at + 1], int.from_bytes(content[at + 2:at + 4], 'big')
            segment = content[at + 4:at + 2 + length]
            if marker in (0xc0, 0xc1):
                components = segment[5]
            while marker == 0xc4 and segment:  # tables of codes, the first of which is all zeros
                first_symbols[segment[0]] = segment[17]
                segment = segment[17 + sum(segment[1:17]):]
            at += 2 + length
        table = 0x10 | content[at + 6] & 0x0f  # of the first component of the scan
        if content[at + 4] == components and first_symbols.get(table):
            end = max(content.find(END_MARK, at), at)
            for zeros in ZEROS.finditer(content, at, end):
                if zeros.end() < end:  # else they may be padding
                    return f'{len(zeros[0])} bytes from {zeros.start()} on are zero'
    return None


@contextlib.contextmanager
def gdal_damage_as_error() -> Iterator[list[str]]:
    """Raise a RasterioError where GDAL only warns of lost pixels; yield its other warnings."""
    from rasterio.errors import RasterioError

    found, harmless, thread = [], [], threading.get_ident()

    def collect(record: logging.LogRecord) -> None:
        if record.thread == thread:
            found.append(_GDAL_PREFIX.sub('', record.getMessage()).strip())

    listener, logger = logging.Handler(logging.WARNING), logging.getLogger('rasterio')
    listener.emit = collect
    logger.addHandler(listener)
    try:
        yield harmless
    finally:
        logger.removeHandler(listener)
    for text in found:
        if loses_pixels(text):
            raise RasterioError(text)
    harmless.extend(found)
