"""Reads a raster by windows: pixels for the model, and which of them are nodata.

A pixel is nodata if GDAL's masks (declared nodata, masks of the file) exclude it in all selected
bands, all of them equal ``--nodata``, any of them is NaN or infinite, an alpha band is 0, or it
belongs to an undeclared collar (:mod:`bhvit_seg.raster.collars`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bhvit_seg.errors import UserError, load_package
from bhvit_seg.inference.windows import Window
from bhvit_seg.raster.collars import COLOURS, Collar, find_collar, make_colour
from bhvit_seg.raster.opening import named_failure, open_quietly
from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.resampling import resample

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

rasterio = load_package('rasterio')
ColorInterp, MaskFlags = rasterio.enums.ColorInterp, rasterio.enums.MaskFlags


class RasterSource:
    """A raster that is read by windows; a UserError if it cannot be opened or does not fit the
    model.

    Each process opens the file again; within one, a single thread may read at a time. It can be
    pickled, with its ``collar`` if the options require one and the first :meth:`read` has found it.
    ``crs``, ``transform``, ``gcps`` and ``rpcs`` are those of rasterio.
    """

    def __init__(self, path: str | Path, options: ReadOptions,
                 collar: Collar | None = None) -> None:
        self.path = os.fspath(path)
        self.options = options
        self.collar = collar
        self._handle, self._process = None, 0
        dataset = self._dataset
        if dataset.count == 0:
            part = (f'one of its parts, such as {dataset.subdatasets[0]}' if dataset.subdatasets
                    else 'a raster with bands')
            raise UserError(f'{self.path} has no bands: give {part}')
        alpha = [band for band, meaning in enumerate(dataset.colorinterp, 1)
                 if meaning == ColorInterp.alpha and options.alpha]
        self.bands = choose_bands(dataset, options.bands, options.channels, alpha)  # from 1
        self.height, self.width = dataset.height, dataset.width  # pixels
        self.dtype = self._common_type()  # of all of these bands
        self.block_shape = dataset.block_shapes[self.bands[0] - 1]  # rows, columns
        self.crs, self.transform = dataset.crs, dataset.transform
        self.gcps, self.rpcs = dataset.gcps, dataset.rpcs
        self._alpha = [band for band in alpha if band not in self.bands]
        self._masked = masked_bands(dataset, self.bands, options)
        self.has_nodata = bool(options.nodata is not None or self._alpha or self._masked
                               or self.dtype.kind == 'f' or options.border_nodata)

    def __reduce__(self) -> tuple:
        return RasterSource, (self.path, self.options, self.collar)

    def __enter__(self) -> RasterSource:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    @property
    def _dataset(self) -> DatasetReader:
        # A forked process has its parent's handle, with which it must not read or close.
        if self._handle is None or self._process != os.getpid():
            with named_failure(self.path, 'what GDAL opens, such as GeoTIFF, VRT or PNG'):
                self._handle = resample(open_quietly(self.path), self.options)
            self._process = os.getpid()
        return self._handle

    def _common_type(self) -> np.dtype:
        names = sorted({self._dataset.dtypes[band - 1] for band in self.bands})
        if any('complex' in name for name in names):
            raise UserError(f'{self.path} has complex values ({", ".join(names)}), which no model '
                            'takes: convert them, to their magnitude for instance')
        dtype = np.result_type(*names)
        if self.options.eight_bit and dtype != np.uint8 and self.options.value_range is None:
            raise UserError(f'{self.path} has {dtype} values, but the model was trained on 8-bit '
                            'images: give --value-range LOW HIGH, the values that are to be seen '
                            'as black and as white')
        return dtype

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read a window, which may reach beyond the raster on every side.

        Returns:
            The pixels ``(h, w, C)`` in the order of ``bands``, uint8 for 8-bit rasters without
            ``value_range``, else float32; and where they are valid, ``(h, w)`` bool. Invalid pixels
            have ``fill``; pixels beyond the raster repeat its outermost ones and are invalid.
        """
        rows = np.arange(window.top, window.bottom)
        columns = np.arange(window.left, window.right)
        near_rows, near_columns = rows.clip(0, self.height - 1), columns.clip(0, self.width - 1)
        top, left = int(near_rows[0]), int(near_columns[0])
        inside = Window(top, left, int(near_rows[-1]) + 1 - top, int(near_columns[-1]) + 1 - left)
        pixels, valid = self._read_inside(inside)
        if inside == window:
            return pixels, valid
        at = np.ix_(near_rows - top, near_columns - left)
        return pixels[at], valid[at] & (rows == near_rows)[:, None] & (columns == near_columns)

    def _read_inside(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        options, border = self.options, self.options.border_nodata
        if border and self.collar is None:
            self.collar = find_collar(self, [
                make_colour(name, self.dtype, options.border_tolerance, options.value_range)
                for name in (COLOURS if border == 'auto' else (border,))], border == 'auto')
        if self.collar is not None and self.collar.touches(window):
            view = self.collar.view(window)
            pixels, valid = self.decode(view)
            data = ~self.collar.mask(window, pixels, valid)
            top, left = window.top - view.top, window.left - view.left
            part = slice(top, top + window.height), slice(left, left + window.width)
            pixels = np.ascontiguousarray(pixels[part])
            valid = data if valid is None else valid[part] & data
        else:
            pixels, valid = self.decode(window)
        fill = np.array(options.fill)
        if options.value_range is not None:
            low, high = options.value_range
            pixels = pixels.astype(np.float32, copy=False)
            with np.errstate(over='ignore'):
                pixels -= np.float32(low)
                pixels *= np.float32(255 / (high - low))
            np.clip(pixels, 0, 255, out=pixels)
        elif pixels.dtype == np.uint8:
            fill = np.rint(fill).clip(0, 255)
        else:
            pixels = pixels.astype(np.float32, copy=False)
        if valid is None:
            return pixels, np.ones(pixels.shape[:2], bool)
        pixels[~valid] = fill.astype(pixels.dtype)
        return pixels, valid

    def decode(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a window within the raster as stored, but float64 as float32.

        Returns:
            The values ``(h, w, C)`` of the selected bands; and where they are declared valid, ``(h,
            w)`` bool, or None for everywhere.
        """
        alpha = len(self._alpha)
        # GDAL writes through the strides of what it is given: bands come out last without a copy.
        values = np.empty((window.height, window.width, len(self.bands) + alpha), self.dtype)
        at = rasterio.windows.Window(window.left, window.top, window.width, window.height)
        conditions = []
        try:
            with named_failure(self.path, window=window):
                self._dataset.read((*self.bands, *self._alpha), window=at,
                                   out=values.transpose(2, 0, 1))
                if self._masked:
                    conditions.append(self._dataset.read_masks(self._masked, window=at).any(axis=0))
        except UserError:
            # GDAL's cache keeps the pixels of a damaged block as if they were valid.
            self.close()
            raise
        if alpha:
            conditions.append(values[..., -alpha:].all(axis=2))
            values = np.ascontiguousarray(values[..., :-alpha])
        if self.options.nodata is not None:
            conditions.append(_any_band(values != self.options.nodata))
        if self.dtype.kind == 'f':
            with np.errstate(over='ignore'):
                values = values.astype(np.float32, copy=False)
            conditions.append(~_any_band(~np.isfinite(values)))
        if not conditions:
            return values, None
        valid = functools.reduce(np.logical_and, conditions)
        return values, None if valid.all() else valid


def choose_bands(dataset: DatasetReader, bands: Sequence[int] | None, channels: int,
                 alpha: Sequence[int]) -> tuple[int, ...]:
    """Return the bands, from 1, of a model's channels, by default the first not among ``alpha``. A
    UserError reports missing bands or a colour table."""
    name, count = dataset.name, dataset.count
    if bands is not None:
        listing = ','.join(map(str, bands))
        if len(bands) != channels:
            raise UserError(f'--bands {listing} names {len(bands)} bands, but the model takes '
                            f'{channels}: name as many as it takes, in its order')
        missing = [band for band in bands if not 1 <= band <= count]
        if missing:
            raise UserError(f'--bands {listing} names band {missing[0]}, but {name} has {count}: '
                            f'give numbers from 1 to {count}')
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


def masked_bands(dataset: DatasetReader, bands: Sequence[int], options: ReadOptions) -> list[int]:
    """Return the bands whose masks GDAL must provide; none where one is always valid. A pixel is
    nodata if all masks say so; alpha bands are read as bands."""
    masked = []
    for band in bands:
        flags = set(dataset.mask_flag_enums[band - 1])
        if MaskFlags.all_valid in flags or (
                MaskFlags.nodata in flags and options.nodata is not None):
            return []
        if flags == {MaskFlags.per_dataset}:
            return [band]
        if MaskFlags.alpha not in flags:
            masked.append(band)
    return masked


def _any_band(found: np.ndarray) -> np.ndarray:
    """Reduce ``(h, w, C)`` to ``(h, w)``, band by band: NumPy is slow along a short axis."""
    return functools.reduce(np.logical_or, np.moveaxis(found, 2, 0))
