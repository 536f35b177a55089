"""How rasters are opened, and what maps say about their classes."""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bhvit_seg.errors import UserError, first_line
from bhvit_seg.extras import missing_package
from bhvit_seg.inference.inputs import Kind, kind_of

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# A map's band has a tag for each class, its name.
CLASS_TAG = 'CLASS_'
HARMLESS_BYTES = 16
_told: set[tuple[str, str]] = set()


def load_rasterio() -> ModuleType:
    """Import rasterio.

    Raises:
        UserError: It is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise UserError(missing_package('rasterio')) from error
    return rasterio


def open_quietly(path: str | Path, *args: Any, **kwargs: Any) -> Any:
    """``rasterio.open`` without its warning about rasters without coordinates, fine as they are."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        return load_rasterio().open(path, *args, **kwargs)


@contextmanager
def open_raster(path: str | Path, expected: str = 'a whole raster') -> Iterator[DatasetReader]:
    """Open a raster for reading.

    Args:
        path: The raster.
        expected: What it should be, for the message.

    Raises:
        UserError: It cannot be opened, or rasterio is missing.
    """
    load_rasterio()
    with named_failure(path, expected):
        dataset = open_quietly(path)
    with dataset:
        yield dataset


@contextmanager
def named_failure(path: str | Path, expected: str = 'a whole raster') -> Iterator[None]:
    """Report what GDAL cannot read under the name of the file.

    Raises:
        UserError: Something could not be read.
    """
    from rasterio.errors import RasterioError

    try:
        with named_warnings(path):
            yield
    except RasterioError as error:
        reason = ('no such file' if kind_of(path) is Kind.MISSING
                  else first_line(error.__cause__ or error))
        raise UserError(f'cannot read {path} ({reason}): give {expected}') from error


class _Listener(logging.Handler):
    """Collects the warnings of GDAL, which rasterio logs, of one thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.found.append(re.sub(r'^CPLE_\w+:|in JPEGLib:| \(this warning can be.*', '',
                                     record.getMessage()).strip())


@contextmanager
def named_warnings(path: str | Path) -> Iterator[None]:
    """Print GDAL's warnings with the name of the file, each once.

    A damaged JPEG is not an error to GDAL: pixels that cannot be decoded are made up.

    Raises:
        RasterioError: GDAL only warns that pixels are lost.
    """
    from rasterio.errors import RasterioError

    logger = logging.getLogger('rasterio._err')
    listener = _Listener()
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    for text in listener.found:
        if loses_pixels(text):
            raise RasterioError(text)
        if (str(path), text) not in _told:
            _told.add((str(path), text))
            print(f'note: GDAL says of {path}: {text}', file=sys.stderr)


def loses_pixels(warning: str) -> bool:
    """Whether a warning of GDAL's JPEG decoder says that pixels are made up.

    Some cameras write a few more bytes before the end of an image, which is harmless. More of them,
    or any within the image, are left over where decoding went wrong.
    """
    extraneous = re.search(r'(\d+) extraneous bytes before marker 0x(\w+)', warning)
    if extraneous:
        return int(extraneous[1]) > HARMLESS_BYTES or extraneous[2] != 'd9'
    return 'orrupt JPEG' in warning


def class_names(dataset: DatasetReader) -> dict[int, str]:
    """Return the class names that a map carries, by id, in the order of the ids."""
    tags = {key[len(CLASS_TAG):]: name for key, name in dataset.tags(1).items()
            if key.startswith(CLASS_TAG)}
    return {int(key): tags[key] for key in sorted(filter(str.isdecimal, tags), key=int)}
