"""How rasters are opened, and what maps say about their classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bhvit_seg.errors import UserError, first_line

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# A map's band has a tag for each class, its name.
CLASS_TAG = 'CLASS_'


def load_rasterio() -> ModuleType:
    """Import rasterio.

    Raises:
        UserError: It is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise UserError('rasters are read and written with rasterio, which is missing: '
                        "pip install 'bhvit_seg[raster]'") from error
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
        yield
    except RasterioError as error:
        reason = first_line(error) if Path(path).exists() else 'no such file'
        raise UserError(f'cannot read {path} ({reason}): give {expected}') from error


def class_names(dataset: DatasetReader) -> dict[int, str]:
    """Return the class names that a map carries, by id, in the order of the ids."""
    tags = {key[len(CLASS_TAG):]: name for key, name in dataset.tags(1).items()
            if key.startswith(CLASS_TAG)}
    return {int(key): tags[key] for key in sorted(filter(str.isdecimal, tags), key=int)}
