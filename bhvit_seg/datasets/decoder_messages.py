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
    """Collects GDAL's warnings, which rasterio logs, about JPEG data that it had to make up.

    A damaged JPEG block is not an error to GDAL: it is read as grey. Superfluous bytes are
    harmless.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.thread == self._thread and 'orrupt JPEG' in text and 'extraneous' not in text:
            self.found.append(text.rpartition('JPEGLib:')[2])


@contextlib.contextmanager
def gdal_damage_as_error() -> Iterator[None]:
    """Raise :class:`rasterio.errors.RasterioError` where GDAL only warns that pixels are lost."""
    from rasterio.errors import RasterioError

    logger = logging.getLogger('rasterio._err')
    listener = _GdalListener()
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    if listener.found:
        raise RasterioError(listener.found[0])
