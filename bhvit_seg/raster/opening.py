"""Opening rasters, and the class names of maps."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bhvit_seg.datasets.decoder_messages import gdal_damage_as_error
from bhvit_seg.errors import UserError, first_line, load_package
from bhvit_seg.inference.inputs import Kind, kind_of
from bhvit_seg.inference.windows import Window

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

CLASS_TAG = 'CLASS_'  # a map's band has a tag for each class, its name
_REMOTE = re.compile('://|/vsi(?:curl|s3|gs|az|adls|oss|swift)[/_?]')
_told: set[tuple[str, str]] = set()


def open_quietly(path: str | Path, *args: Any, **kwargs: Any) -> Any:
    """``rasterio.open`` without its warning about missing coordinates; GDAL's name the file."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), _named_warnings(path):
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        return load_package('rasterio').open(path, *args, **kwargs)


@contextlib.contextmanager
def open_raster(path: str | Path, expected: str = 'a whole raster') -> Iterator[DatasetReader]:
    """Open a raster for reading, or raise a UserError that says what was ``expected``."""
    load_package('rasterio')
    with named_failure(path, expected):
        dataset = open_quietly(path)
    with dataset:
        yield dataset


@contextlib.contextmanager
def named_failure(path: str | Path, expected: str = 'a whole raster',
                  window: Window | None = None) -> Iterator[None]:
    """Raise a UserError with the name of the file, and of the part, that GDAL cannot read."""
    from rasterio.errors import RasterioError

    try:
        with _named_warnings(path):
            yield
    except RasterioError as error:
        missing = kind_of(path) in (Kind.MISSING, Kind.PATTERN)
        reason = 'no such file' if missing else first_line(error.__cause__ or error)
        again = 'copy, download or make the file again'
        if _REMOTE.search(os.fspath(path)):
            expected = 'another address, on a server that answers range requests, or download it'
            again = 'give the same command again, or download it'
        if window is None:
            raise UserError(f'cannot read {path} ({reason}): give {expected}') from error
        raise UserError(
            f'{path} cannot be read at rows {window.top} to {window.bottom - 1}, columns '
            f'{window.left} to {window.right - 1} ({reason}): {again}') from error


@contextlib.contextmanager
def _named_warnings(path: str | Path) -> Iterator[None]:
    """Print GDAL's warnings with the name of the file, each once; lost pixels are an error."""
    with gdal_damage_as_error() as harmless:
        yield
    for text in harmless:
        if (str(path), text) not in _told:
            _told.add((str(path), text))
            print(f'note: GDAL says of {path}: {text}', file=sys.stderr)


def paths_read(path: str | os.PathLike) -> list[str]:
    """Return the paths and addresses that GDAL reads for a raster, with nested VRTs and masks."""
    path = os.fspath(path)
    found, left = set(), [path]
    while left:
        each = left.pop()
        if each in found:
            continue
        found.add(each)
        only = {} if each == path else {'driver': 'VRT'}
        if only and each.lower().endswith(('.tif', '.tiff', '.jp2', '.jpg', '.png')):
            continue  # the thousands of tiles of a mosaic
        with contextlib.suppress(load_package('rasterio').errors.RasterioError), (
                open_quietly(each, **only)) as dataset:
            left += dataset.files
    return sorted(found)


def class_names(dataset: DatasetReader) -> dict[int, str]:
    tags = {key[len(CLASS_TAG):]: name for key, name in dataset.tags(1).items()
            if key.startswith(CLASS_TAG)}
    return {int(key): tags[key] for key in sorted(filter(str.isdecimal, tags), key=int)}
