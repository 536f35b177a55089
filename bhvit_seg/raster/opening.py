"""How rasters are opened, and what maps say about their classes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bhvit_seg.datasets.decoder_messages import gdal_damage_as_error
from bhvit_seg.errors import UserError, first_line, load_package
from bhvit_seg.inference.inputs import Kind, kind_of

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# A map's band has a tag for each class, its name.
CLASS_TAG = 'CLASS_'
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


@contextmanager
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


def class_names(dataset: DatasetReader) -> dict[int, str]:
    """Return the class names that a map carries, by id, in the order of the ids."""
    tags = {key[len(CLASS_TAG):]: name for key, name in dataset.tags(1).items()
            if key.startswith(CLASS_TAG)}
    return {int(key): tags[key] for key in sorted(filter(str.isdecimal, tags), key=int)}
