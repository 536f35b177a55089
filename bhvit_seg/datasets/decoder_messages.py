"""Damage that decoders of JPEG data only mention: they go on with pixels that they make up.

Needs nothing but the standard library, and rasterio where GDAL reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

_stderr_lock = threading.Lock()
HARMLESS_BYTES = 16
_LIBRARY_LINE = re.compile(rb'JPEG|JPEGLib|libpng|SOS|Adobe|TIFF', re.IGNORECASE)


@contextlib.contextmanager
def collect_stderr() -> Iterator[list[str]]:
    """Collect what image libraries in C write to stderr; whatever else comes there passes.

    Yields:
        A list that is filled with lines when the block ends.
    """
    lines: list[str] = []
    with _stderr_lock, contextlib.ExitStack() as stack:
        try:
            saved = os.dup(2)
        except OSError:  # stderr is closed; and stays of no effect
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
    # Another thread may have held it when the process was forked, and is not here to release it.
    global _stderr_lock
    _stderr_lock = threading.Lock()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_renew_lock)


def find_jpeg_damage(lines: list[str], content: bytes) -> str | None:
    """Return what libjpeg says about lost pixels of a JPEG file, None where it says nothing.

    Superfluous bytes before the end mark are harmless where they are padding, all of one value;
    else they are pixels, left over because something before them is damaged.
    """
    for line in lines:
        superfluous = re.search(r'(\d+) extraneous bytes before marker 0xd9', line)
        if superfluous:
            end = content.rfind(b'\xff\xd9')
            if len(set(content[end - int(superfluous.group(1)):end])) <= 1:
                continue
        if 'orrupt JPEG' in line or 'Premature end' in line:
            return line
    return None


class _GdalListener(logging.Handler):
    """Collects the warnings of GDAL, which rasterio logs, of one thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.found.append(re.sub(r'^CPLE_\w+(:| in )|in JPEGLib:| \(this warning can be.*', '',
                                     record.getMessage()).strip())


@contextlib.contextmanager
def gdal_damage_as_error() -> Iterator[list[str]]:
    """Raise :class:`rasterio.errors.RasterioError` where GDAL only warns that pixels are lost.

    A damaged JPEG block is not an error to GDAL: pixels that cannot be decoded are made up.

    Yields:
        A list that is filled with the other warnings when the block ends.
    """
    from rasterio.errors import RasterioError

    harmless: list[str] = []
    logger = logging.getLogger('rasterio')
    listener = _GdalListener()
    logger.addHandler(listener)
    try:
        yield harmless
    finally:
        logger.removeHandler(listener)
    for text in listener.found:
        if loses_pixels(text):
            raise RasterioError(text)
    harmless.extend(listener.found)


def loses_pixels(warning: str) -> bool:
    """Whether a warning of GDAL's JPEG decoder says that pixels are made up.

    Some cameras write a few more bytes before the end of an image, which is harmless. More of them,
    or any within the image, are left over where decoding went wrong.
    """
    extraneous = re.search(r'(\d+) extraneous bytes before marker 0x(\w+)', warning)
    if extraneous:
        return int(extraneous[1]) > HARMLESS_BYTES or extraneous[2] != 'd9'
    return 'orrupt JPEG' in warning
