"""Selects the bands that a model reads, and the values, bands or masks that mark nodata."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.raster.opening import load_rasterio

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

rasterio = load_rasterio()
ColorInterp, MaskFlags = rasterio.enums.ColorInterp, rasterio.enums.MaskFlags


def choose_bands(dataset: DatasetReader, bands: Sequence[int] | None, channels: int,
                 alpha: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers, from 1, of the bands that are the channels of a model.

    Args:
        dataset: The raster.
        bands: Those asked for; None: the first ones that are not an alpha band.
        channels: How many the model takes.
        alpha: The bands that say how opaque a pixel is.

    Raises:
        UserError: The raster has no such bands, too few, or a colour table instead of colours.
    """
    name, count = dataset.name, dataset.count
    if bands is not None:
        if len(bands) != channels:
            raise UserError(f'--bands {_listed(bands)} names {len(bands)} bands, but the model '
                            f'takes {channels}: name as many as it takes, in its order')
        missing = [band for band in bands if not 1 <= band <= count]
        if missing:
            raise UserError(f'--bands {_listed(bands)} names band {missing[0]}, but {name} has '
                            f'{count}: give numbers from 1 to {count}')
        return tuple(bands)
    colours = [band for band in range(1, count + 1) if band not in alpha]
    if any(dataset.colorinterp[band - 1] == ColorInterp.palette for band in colours[:channels]):
        raise UserError(f'{name} has a colour table instead of colours: expand it with '
                        '`gdal_translate -expand rgb`')
    if len(colours) < channels:
        besides, way_out = '', ''
        if len(colours) < count:
            besides = ' besides its alpha band'
            way_out = '--no-alpha if that is a band like the others, '
        raise UserError(f'{name} has {len(colours)} band{"s" * (len(colours) != 1)}{besides}, but '
                        f'the model takes {channels}: give another raster, {way_out}or --bands '
                        f'with {channels} numbers, which may repeat')
    return tuple(colours[:channels])


def alpha_bands(dataset: DatasetReader) -> tuple[int, ...]:
    """Return the numbers of the bands that say how opaque a pixel is."""
    return tuple(band for band, meaning in enumerate(dataset.colorinterp, 1)
                 if meaning == ColorInterp.alpha)


def nodata_values(dataset: DatasetReader, bands: Sequence[int],
                  override: float | None) -> tuple[float | int, ...] | None:
    """Return the value of each band that means no data.

    Args:
        dataset: The raster.
        bands: Numbers from 1.
        override: The value to take instead of the declared ones.

    Returns:
        Values as the raster stores them; None where a band has none that its type can hold, so
        that no pixel can be nodata in every band. NaN, which is never data, counts as none.
    """
    values = []
    for band in bands:
        declared = dataset.nodatavals[band - 1] if override is None else override
        dtype = np.dtype(dataset.dtypes[band - 1])
        if declared is None or math.isnan(declared):
            return None
        if dtype.kind in 'iu':
            limits = np.iinfo(dtype)
            if not float(declared).is_integer() or not limits.min <= declared <= limits.max:
                return None
            values.append(int(declared))
        else:
            with np.errstate(over='ignore'):
                values.append(dtype.type(declared))
    return tuple(values)


def masked_bands(dataset: DatasetReader, bands: Sequence[int],
                 ignore_nodata: bool) -> tuple[int, ...]:
    """Return the bands whose masks have to be read in addition to the bands.

    Args:
        dataset: The raster.
        bands: Numbers from 1.
        ignore_nodata: Whether the declared nodata values are overridden.

    Returns:
        One band where a mask is for the whole raster; all where each has its own, as a pixel is
        then nodata if all of them are; none where nodata values or alpha bands suffice, or where
        one band is valid everywhere.
    """
    masked = []
    for band in bands:
        flags = set(dataset.mask_flag_enums[band - 1])
        if MaskFlags.all_valid in flags or (MaskFlags.nodata in flags and ignore_nodata):
            return ()
        if flags == {MaskFlags.per_dataset}:
            return (band,)
        if MaskFlags.alpha not in flags and flags != {MaskFlags.nodata}:
            masked.append(band)
    # Where some bands have a nodata value and others a mask, GDAL's masks say both.
    return tuple(bands) if masked else ()


def _listed(bands: Sequence[int]) -> str:
    return ','.join(map(str, bands))
