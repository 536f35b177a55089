"""A PNG of a label raster over its image at screen size, by decimated reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_bytes
from bhvit_seg.inference.blending import class_opacity
from bhvit_seg.raster.opening import class_names, named_failure, open_raster

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MAX_SIDE = 2048
# Percentiles of imagery of other than 8 bits that become black and white: this one and 100 less it.
BLACK_PERCENTILE = 2
NODATA_GREY = 128


@dataclass(frozen=True)
class LabelPicture:
    ids: np.ndarray  # (h, w) uint8
    nodata: int | None  # the id that stands for no class
    palette: np.ndarray  # the colour (RGB) of every id, (256, 3) uint8
    names: dict[int, str]  # by id, in the order of the ids
    valid: np.ndarray  # where there is a class, (h, w) bool


def write_preview(image: str | Path, labels: str | Path, out: str | Path, *,
                  bands: Sequence[int] | None = None, max_side: int = MAX_SIDE,
                  opacity: float = 0.5, alpha: bool = True) -> None:
    """Write a PNG of an image under the colours of its label raster, transparent at nodata.

    Args:
        image, labels: The raster, and its label raster with colour table and class names.
        bands: Bands to show (from 1); by default red, green and blue.
        max_side: Largest side of the PNG in pixels.
        opacity: Opacity of the class colours, 0 to 1; the class ``background`` has none.
        alpha: Whether a band tagged as alpha marks nodata.

    Raises:
        UserError: A raster cannot be read, they differ in size, or ``out`` cannot be written.
    """
    with open_raster(image) as source, open_raster(labels) as result:
        check_same_size(source, result)
        size = fit(source.shape, max_side)
        picture = read_labels(result, size)
        pixels, _ = read_picture(source, size, bands, picture.valid, alpha)
    colours = np.moveaxis(picture.palette.astype(np.float32)[picture.ids], -1, 0)
    opacity = class_opacity(picture.ids, picture.names, opacity)
    # Of one band or three.
    blend = np.rint((1 - opacity) * pixels + opacity * colours).astype(np.uint8)
    opaque = 255 * picture.valid[None].astype(np.uint8)
    write_output(out, encode(np.append(blend, opaque, axis=0), 'PNG'))


def check_same_size(image: DatasetReader, labels: DatasetReader) -> None:
    """Refuse labels of another size than the image, unless they cover the same extent."""
    if image.shape == labels.shape:
        return
    corners = np.array([[each.transform * (column * each.width, row * each.height)
                         for column, row in ((0, 0), (1, 0), (1, 1))] for each in (image, labels)])
    tolerance = np.abs(np.diff(corners[0], axis=0)).max() / max(image.shape) / 100
    if image.crs is None or image.crs != labels.crs or np.abs(np.diff(
            corners, axis=0)).max() > tolerance:
        raise UserError(
            f'{labels.name} has {labels.width} × {labels.height} pixels, but {image.name} has '
            f'{image.width} × {image.height}: give the image that the map was made from')


def fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return ``size`` (height, width), scaled down where a side is longer than ``max_side``."""
    scale = min(1, max_side / max(size))
    height, width = (max(1, round(scale * side)) for side in size)
    return height, width


def display_bands(dataset: DatasetReader) -> tuple[int, ...]:
    """Return the bands (from 1) of red, green and blue, or the one of grey."""
    tagged = [meaning.name for meaning in dataset.colorinterp]
    if {'red', 'green', 'blue'} <= set(tagged):
        return tuple(tagged.index(colour) + 1 for colour in ('red', 'green', 'blue'))
    return tuple(band for band, meaning in enumerate(tagged, 1) if meaning != 'alpha')


def read_picture(dataset: DatasetReader, size: tuple[int, int], bands: Sequence[int] | None = None,
                 shown: np.ndarray | None = None, alpha: bool = True
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Read the whole image at ``size`` (h, w) in 8 bits.

    The first three of ``bands`` (from 1), or the first of fewer, are read. Values of other than 8
    bits are scaled by their range where the picture is ``shown``, bool (h, w).

    Returns:
        Pixels (3 or 1, h, w), uint8, and where they are declared valid, bool (h, w); others are
        grey.
    """
    from rasterio.enums import MaskFlags, Resampling

    bands = bands or display_bands(dataset)
    bands = bands[:3] if len(bands) >= 3 else bands[:1]
    everywhere = {MaskFlags.all_valid} if alpha else {MaskFlags.all_valid, MaskFlags.alpha}
    with named_failure(dataset.name):
        raw = dataset.read(bands, out_shape=(len(bands), *size), resampling=Resampling.average)
        valid = np.isfinite(raw).all(axis=0)
        if not all(everywhere.intersection(flags) for flags in dataset.mask_flag_enums):
            valid &= dataset.dataset_mask(out_shape=size) > 0
    used = valid if shown is None else valid & shown
    pixels = np.stack([band if band.dtype == np.uint8 else to_8_bits(band, used) for band in raw])
    pixels[:, ~valid] = NODATA_GREY
    return pixels, valid


def to_8_bits(band: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Scale a band (h, w) to 0..255 between two percentiles of its values where ``used``."""
    if not used.any():
        return np.zeros(band.shape, np.uint8)
    values = band[used].astype(np.float32)
    low, high = np.percentile(values, (BLACK_PERCENTILE, 100 - BLACK_PERCENTILE))
    if low == high:
        low, high = values.min(), values.max()
    scale = 255 / (high - low) if high > low else 0
    with np.errstate(invalid='ignore'):
        scaled = np.clip((band.astype(np.float32) - low) * scale, 0, 255)
    return np.rint(np.nan_to_num(scaled)).astype(np.uint8)


def read_labels(dataset: DatasetReader, size: tuple[int, int]) -> LabelPicture:
    """Read the whole label raster, which has a colour table, at a smaller size."""
    from rasterio.enums import Resampling

    if dataset.dtypes[0] != 'uint8' or dataset.colorinterp[0].name != 'palette':
        raise UserError(f'{dataset.name} is not a label raster: expected a band of class ids '
                        '(uint8) with a colour table, as bhvit-seg predict-raster writes it')
    palette = np.zeros((256, 3), np.uint8)
    for index, colour in dataset.colormap(1).items():
        palette[index] = colour[:3]
    with named_failure(dataset.name):
        ids = dataset.read(1, out_shape=size, resampling=Resampling.mode)
    nodata = None if dataset.nodata is None else int(dataset.nodata)
    valid = np.ones(size, bool) if nodata is None else ids != nodata
    return LabelPicture(ids, nodata, palette, class_names(dataset), valid)


def encode(bands: np.ndarray, driver: str, colours: dict[int, tuple[int, ...]] | None = None,
           **options: Any) -> bytes:
    """Encode a picture, uint8 (bands, h, w), by GDAL's ``driver``, with a table (RGBA)."""
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    count, height, width = bands.shape
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        with memory.open(driver=driver, count=count, height=height, width=width, dtype='uint8',
                         **options) as picture:
            picture.write(bands)
            if colours:
                picture.write_colormap(1, colours)
        return memory.read()


def write_output(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically, or raise a UserError."""
    try:
        write_bytes(path, content)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror}; make room there, or see that it '
                        'can be written to: the map itself is finished') from error
