"""Reads a raster by windows: the pixels for the model, and which of them are nodata.

A pixel is nodata if any of these holds: all selected bands have their nodata value, any of them is
NaN or infinite, the alpha band is 0, a mask of the file excludes it, or it belongs to an undeclared
collar (:mod:`bhvit_seg.raster.collars`). Nodata, alpha and NaN are found in the
values already read; nothing is decoded twice for them.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from bhvit_seg.errors import UserError, first_line
from bhvit_seg.inference.inputs import Kind, kind_of
from bhvit_seg.inference.windows import Window
from bhvit_seg.raster.bands import alpha_bands, choose_bands, masked_bands, nodata_values
from bhvit_seg.raster.collar_search import find_collar
from bhvit_seg.raster.collars import COLOURS, Collar, make_colour
from bhvit_seg.raster.opening import load_rasterio, named_warnings, open_quietly
from bhvit_seg.raster.resampling import resample

rasterio = load_rasterio()
RasterioError = rasterio.errors.RasterioError
BORDERS = (*COLOURS, 'auto')


@dataclass(frozen=True)
class ReadOptions:
    """How rasters are read for a model; plain values, so that they can be pickled and compared.

    Args:
        channels: How many bands the model takes.
        fill: The model's input at nodata, by channel, in the values after ``value_range``.
        bands: Numbers of the bands, from 1, in the model's order; they may repeat. Defaults to
            the first ones that are not an alpha band. An alpha band named here is an ordinary
            band, and says nothing about where there is data.
        nodata: Takes the place of the declared nodata value; NaN: no value means no data.
        border_nodata: ``'black'``, ``'white'`` or ``'auto'``: collars of that colour have no data.
        border_tolerance: How far from the colour a collar's values may lie, of 255; see
            :func:`bhvit_seg.raster.collars.make_colour` for other types.
        value_range: The values that are mapped onto 0 and 255; what lies outside is clipped.
        alpha: Whether a band that the file calls alpha says where there is data; else it is an
            ordinary band.
        eight_bit: Whether the model was trained on 8-bit images, so that it needs a
            ``value_range`` for rasters of other types.
        resolution: Metres a pixel to resample to, see :mod:`bhvit_seg.raster.resampling`;
            defaults to the raster's own pixels.

    Raises:
        UserError: A value is out of range.
    """

    channels: int = 3
    fill: tuple[float, ...] = (0, 0, 0)
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    border_nodata: str | None = None
    border_tolerance: int = 10
    value_range: tuple[float, float] | None = None
    alpha: bool = True
    eight_bit: bool = True
    resolution: float | None = None

    def __post_init__(self) -> None:
        assert len(self.fill) == self.channels
        if self.border_nodata not in (None, *BORDERS):
            raise UserError(f'--border-nodata {self.border_nodata} is not a border: choose from '
                            f'{", ".join(BORDERS)}')
        if not 0 <= self.border_tolerance <= 127:
            raise UserError(f'--border-tolerance {self.border_tolerance} is out of range: give a '
                            'number from 0 to 127, such as 10')
        if self.resolution is not None and not 0 < self.resolution < math.inf:
            raise UserError(f'--resolution {self.resolution} is not a length: give metres, such as '
                            '0.5')
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UserError(f'--value-range {low} {high} is not a range: give two numbers, the '
                                'lower one first')


class RasterSource:
    """A raster that is read by windows.

    The file is opened again in each process that reads; within one, a single thread may read at a
    time. It can be pickled, with the collar if that is known.

    Args:
        path: Anything that rasterio opens.
        options: How it is read.
        collar: The undeclared collar, if it was found before; else, where the options ask for
            one, the first :meth:`read` finds it.

    Attributes:
        path: The path as text.
        options: As given.
        collar: The collar, or None where it is not known or not asked for.
        bands: The bands that are read, numbers from 1.
        height: Rows.
        width: Columns.
        dtype: The NumPy type that holds all of those bands.
        block_shape: Rows and columns of the blocks of the file.
        crs: Coordinate reference system, or None.
        transform: Affine transform from pixels to coordinates; the identity where there is none.
        gcps: Ground control points and their reference system, ``([], None)`` without.
        rpcs: Rational polynomial coefficients, or None.
        has_nodata: Whether any pixel within the raster can be invalid at all.

    Raises:
        UserError: There is no such file, it is not a raster, or it does not suit the model.
    """

    def __init__(self, path: str | Path, options: ReadOptions,
                 collar: Collar | None = None) -> None:
        self.path = os.fspath(path)
        self.options = options
        self.collar = collar
        self._handle = None
        self._process = 0
        dataset = self._dataset
        if dataset.count == 0:
            parts = f': give one of its parts, such as {dataset.subdatasets[0]}' if (
                dataset.subdatasets) else ': give a raster with bands'
            raise UserError(f'{self.path} has no bands{parts}')
        alpha = alpha_bands(dataset) if options.alpha else ()
        self.bands = choose_bands(dataset, options.bands, options.channels, alpha)
        self.height, self.width = dataset.height, dataset.width
        self.dtype = self._common_type()
        self.block_shape = dataset.block_shapes[self.bands[0] - 1]
        self.crs, self.transform = dataset.crs, dataset.transform
        self.gcps, self.rpcs = dataset.gcps, dataset.rpcs
        self._nodata = nodata_values(dataset, self.bands, options.nodata)
        self._alpha = [band for band in alpha if band not in self.bands]
        self._masked = masked_bands(dataset, self.bands, options.nodata is not None)
        self.has_nodata = bool(
            self._nodata is not None or self._alpha or self._masked or self.dtype.kind == 'f'
            or options.border_nodata)

    def __reduce__(self) -> tuple:
        return RasterSource, (self.path, self.options, self.collar)

    def __enter__(self) -> RasterSource:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    @property
    def _dataset(self) -> rasterio.io.DatasetReader:
        # A forked process has its parent's handle, with which it must not read or close.
        if self._handle is None or self._process != os.getpid():
            self._handle, self._process = self._open(), os.getpid()
        return self._handle

    def _open(self) -> rasterio.io.DatasetReader:
        try:
            return resample(open_quietly(self.path), self.options)
        except RasterioError as error:
            if kind_of(self.path) in (Kind.MISSING, Kind.PATTERN):
                raise UserError(f'no such raster: {self.path} does not exist') from error
            raise UserError(f'{self.path} is not a raster that GDAL can open ({_reason(error)}): '
                            'give a GeoTIFF, VRT, JPEG 2000, PNG or the like') from error

    def _common_type(self) -> np.dtype:
        options = self.options
        names = sorted({self._dataset.dtypes[band - 1] for band in self.bands})
        if any('complex' in name for name in names):
            raise UserError(f'{self.path} has complex values ({", ".join(names)}), which no model '
                            'takes: convert them, to their magnitude for instance')
        dtype = np.result_type(*names)
        if options.eight_bit and dtype != np.uint8 and options.value_range is None:
            raise UserError(f'{self.path} has {dtype} values, but the model was trained on 8-bit '
                            'images: give --value-range LOW HIGH, the values that are to be seen '
                            'as black and as white')
        return dtype

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read a window, which may reach beyond the raster on every side.

        Returns:
            The pixels ``(h, w, C)``, bands in the order of ``bands``: uint8 where the raster is
            and there is no ``value_range``, else float32; and where they are valid, ``(h, w)``
            bool. Pixels within the raster that are not valid hold ``fill``; those beyond it
            repeat its outermost ones, and are not valid.

        Raises:
            UserError: That part of the file cannot be read.
        """
        rows, columns = (np.arange(first, stop) for first, stop in (
            (window.top, window.bottom), (window.left, window.right)))
        near_rows, near_columns = rows.clip(0, self.height - 1), columns.clip(0, self.width - 1)
        top, left = int(near_rows[0]), int(near_columns[0])
        inside = Window(top, left, int(near_rows[-1]) + 1 - top, int(near_columns[-1]) + 1 - left)
        pixels, valid = self._read_inside(inside)
        if inside == window:
            return pixels, valid
        at = np.ix_(near_rows - top, near_columns - left)
        return pixels[at], valid[at] & (rows == near_rows)[:, None] & (columns == near_columns)

    def _read_inside(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        if self.options.border_nodata and self.collar is None:
            border = self.options.border_nodata
            self.collar = find_collar(self, [
                make_colour(name, self.dtype, self.options.border_tolerance,
                            self.options.value_range)
                for name in (COLOURS if border == 'auto' else (border,))], border == 'auto')
        if self.collar is not None and self.collar.touches(window):
            view = self.collar.view(window)
            pixels, valid = self.decode(view)
            collar = self.collar.mask(window, pixels, valid)
            top, left = window.top - view.top, window.left - view.left
            part = slice(top, top + window.height), slice(left, left + window.width)
            pixels = np.ascontiguousarray(pixels[part])
            valid = _also(None if valid is None else valid[part], ~collar)
        else:
            pixels, valid = self.decode(window)
        pixels = self._for_model(pixels)
        if valid is None:
            return pixels, np.ones(pixels.shape[:2], bool)
        fill = np.array(self.options.fill)
        if pixels.dtype == np.uint8:
            fill = np.rint(fill).clip(0, 255)
        pixels[~valid] = fill.astype(pixels.dtype)
        return pixels, valid

    def _for_model(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels as the model takes them."""
        value_range = self.options.value_range
        if pixels.dtype == np.uint8 and value_range is None:
            return pixels
        pixels = pixels.astype(np.float32, copy=False)
        if value_range is not None:
            low, high = value_range
            with np.errstate(over='ignore'):
                pixels -= np.float32(low)
                pixels *= np.float32(255 / (high - low))
            np.clip(pixels, 0, 255, out=pixels)
        return pixels

    def decode(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a window within the raster as it is stored, but float64 as float32.

        Returns:
            The values ``(h, w, C)`` of the selected bands; and where they are declared to be
            valid, ``(h, w)`` bool, or None where that is everywhere.

        Raises:
            UserError: That part of the file cannot be read.
        """
        alpha = len(self._alpha)
        # GDAL writes through the strides of what it is given: bands come out last without a copy.
        values = np.empty((window.height, window.width, len(self.bands) + alpha), self.dtype)
        at = rasterio.windows.Window(window.left, window.top, window.width, window.height)
        with self._named_failures(window):
            self._dataset.read((*self.bands, *self._alpha), window=at,
                               out=values.transpose(2, 0, 1))
            masks = self._dataset.read_masks(self._masked, window=at) if self._masked else None
        valid = None
        if masks is not None:
            valid = _also(valid, masks.any(axis=0))
        if alpha:
            valid = _also(valid, values[..., -alpha:].all(axis=2))
            values = np.ascontiguousarray(values[..., :-alpha])
        if self._nodata is not None:
            valid = _also(valid, ~_every_band(
                values, lambda band, plane: plane == self._nodata[band]))
        if self.dtype.kind == 'f':
            with np.errstate(over='ignore'):
                values = values.astype(np.float32, copy=False)
            valid = _also(valid, _every_band(values, lambda band, plane: np.isfinite(plane)))
        return values, valid

    @contextlib.contextmanager
    def _named_failures(self, window: Window) -> Iterator[None]:
        """Say which part of which file could not be read."""
        try:
            with named_warnings(self.path):
                yield
        except RasterioError as error:
            # The pixels of a damaged block stay in GDAL's cache, and would pass for whole ones.
            self.close()
            raise UserError(
                f'{self.path} cannot be read at rows {window.top} to {window.bottom - 1}, columns '
                f'{window.left} to {window.right - 1} ({_reason(error)}): copy or download the '
                'file again') from error


def _also(valid: np.ndarray | None, more: np.ndarray) -> np.ndarray | None:
    """Return where both are valid; None still means everywhere."""
    if more.all():
        return valid
    return more if valid is None else valid & more


def _every_band(values: np.ndarray, test: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """Return where a test of number and values ``(h, w)`` holds for all bands of ``(h, w, C)``."""
    found = test(0, values[..., 0])
    for band in range(1, values.shape[2]):
        found &= test(band, values[..., band])
    return found


def _reason(error: BaseException) -> str:
    """Return the first line of what GDAL said, rather than of what rasterio made of it."""
    return first_line(error.__cause__ or error)
