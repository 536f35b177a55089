"""How rasters are opened, and what maps say about their classes."""

from __future__ import annotations

import contextlib
import html
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bhvit_seg.datasets.decoder_messages import gdal_damage_as_error
from bhvit_seg.errors import UserError, first_line, load_package
from bhvit_seg.inference.inputs import Kind, files_behind, kind_of

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# A map's band has a tag for each class, its name.
CLASS_TAG = 'CLASS_'
_VRT = b'<VRTDataset'
_SOURCE = re.compile('<Source(?:Filename|Dataset)[^>]*>([^<]+)<')
_told: set[tuple[str, str]] = set()


def load_rasterio() -> ModuleType:
    """Import rasterio.

    Raises:
        UserError: It is not installed.
    """
    return load_package('rasterio')


def open_quietly(path: str | Path, *args: Any, **kwargs: Any) -> Any:
    """``rasterio.open`` without its warning about rasters without coordinates, which are fine.

    Warnings of GDAL are printed with the name of the file.
    """
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), named_warnings(path):
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        return load_rasterio().open(path, *args, **kwargs)


@contextlib.contextmanager
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


@contextlib.contextmanager
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


@contextlib.contextmanager
def named_warnings(path: str | Path) -> Iterator[None]:
    """Print GDAL's warnings with the name of the file, each once.

    Raises:
        RasterioError: GDAL only warns that pixels are lost.
    """
    with gdal_damage_as_error() as harmless:
        yield
    for text in harmless:
        if (str(path), text) not in _told:
            _told.add((str(path), text))
            print(f'note: GDAL says of {path}: {text}', file=sys.stderr)


def paths_read(path: str | os.PathLike) -> list[str]:
    """Return the paths and addresses that GDAL reads for a raster, itself included.

    GDAL names the files of a VRT, but neither those of the VRTs among them, nor parts of files
    such as ``GPKG:tiles.gpkg:summer``. What cannot be opened has no others.
    """
    left = [os.fspath(path)]
    with contextlib.suppress(load_rasterio().errors.RasterioError), open_quietly(path) as dataset:
        left += dataset.files
    found: dict[str, None] = {}
    while left:
        each = left.pop()
        if each not in found:
            found[each] = None
            left += _sources_of_vrt(each)
    return sorted(found)


def _sources_of_vrt(path: str) -> Iterator[str]:
    """Yield the sources that are on disk of a file that is a VRT."""
    try:
        with open(path, 'rb') as file:
            content = file.read(len(_VRT) + 64)
            content = content + file.read() if _VRT in content else b''
    except (OSError, ValueError):
        return
    for source in _SOURCE.findall(content.decode(errors='replace')):
        source = html.unescape(source).strip()
        for place in (os.path.join(os.path.dirname(path), source), source):
            if files_behind(place):
                yield place
                break


def class_names(dataset: DatasetReader) -> dict[int, str]:
    """Return the class names that a map carries, by id, in the order of the ids."""
    tags = {key[len(CLASS_TAG):]: name for key, name in dataset.tags(1).items()
            if key.startswith(CLASS_TAG)}
    return {int(key): tags[key] for key in sorted(filter(str.isdecimal, tags), key=int)}
