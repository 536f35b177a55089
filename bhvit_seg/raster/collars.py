"""Undeclared collars: the black or white around an image that its file calls valid.

Mosaics are often exported without a nodata tag, and lossy compression turns their collars into
noise of a few grey levels. Thresholding alone would also take shadows and roofs; a collar has to be
connected to the raster's edge. The raster is divided into squares of 8 x 8 pixels, and squares
wholly of the collar's colour spread from one to the next, beginning at the raster's outer edge
where 64 successive pixels have that colour. Then, with single pixels, the collar grows by at most
8 pixels up to the image, so that a road or shadow of its colour that touches it is not followed
where it is narrower than a square, and bright specks of compression that it encloses are closed. A
wider one cannot be told from the collar; strong compression needs a greater tolerance.

The squares are found once (:mod:`bhvit_seg.raster.collar_search`). The pixels are decided as each
window is read, from the window and :data:`HALO` pixels around it, so that they do not depend on how
the raster is cut into windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.inference.windows import Window

COLOURS = ('black', 'white')
SIDE = 8
# 8 pixels: the width of what is left between whole squares and the image where compression, whose
# blocks are as large, mixed both. Specks are noise of one such block.
GROWTH = 8
CLOSING = 8
HALO = GROWTH + CLOSING


class Colour(NamedTuple):
    """A collar's colour: the values, as stored, that all bands of a pixel lie between."""

    name: str
    exact: float
    low: float | None
    high: float | None

    def covers(self, pixels: np.ndarray) -> np.ndarray:
        """Return which pixels ``(h, w, C)`` have the colour, ``(h, w)``."""
        found = np.ones(pixels.shape[:2], bool)
        for band in range(pixels.shape[2]):
            if self.low is not None:
                found &= pixels[..., band] >= self.low
            if self.high is not None:
                found &= pixels[..., band] <= self.high
        return found


def make_colour(name: str, dtype: np.dtype, tolerance: float,
                value_range: tuple[float, float] | None) -> Colour:
    """Return what black or white means in a raster.

    Black is 0. White is 255 in 8 bits, else the upper end of ``value_range`` or, without one,
    65535 in 16 bits.

    Args:
        name: ``'black'`` or ``'white'``.
        dtype: Of the raster.
        tolerance: How far from the colour a value may lie: of 255 in 8 bits and where there is a
            ``value_range``; else in units of the raster, as the range of 16 bits is rarely used
            up and a fraction of it would take dark land for a collar.
        value_range: The values that are mapped onto 0 to 255.

    Raises:
        UserError: The raster has a type without a white, and no ``value_range`` was given.
    """
    dtype = np.dtype(dtype)
    if dtype == np.uint8:
        white = 255
    elif value_range is not None:
        white, tolerance = value_range[1], tolerance / 255 * (value_range[1] - value_range[0])
    elif dtype == np.uint16:
        white = 65535
    else:
        raise UserError(f'--border-nodata cannot know what black and white are in a {dtype} '
                        'raster: give --value-range as well')
    if dtype.kind in 'iu':
        tolerance, white = int(tolerance), int(white)
    if name == 'white':
        return Colour(name, white, white - tolerance, None)
    return Colour(name, 0, None if dtype.kind == 'u' else -tolerance, tolerance)


@dataclass(frozen=True, eq=False)
class Collar:
    """The collar of one raster, as a map of squares; small, and can be pickled.

    Attributes:
        height: Rows of the raster.
        width: Columns of the raster.
        colours: Those it has; none where there is no collar.
        packed: Which squares belong to it, a bit each, with a ring of squares outside the raster:
            ``(rows + 2, ceil((columns + 2) / 8))`` uint8.
    """

    height: int
    width: int
    colours: tuple[Colour, ...]
    packed: np.ndarray

    def touches(self, window: Window) -> bool:
        """Whether any pixel of a window within the raster may belong to the collar.

        Tests whole bytes of the map: True may be wrong, False never is.
        """
        rows, columns = self._reach(self.view(window))
        rows, columns = _square_of(rows, self.height), _square_of(columns, self.width) // 8
        return bool(self.packed[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].any())

    def view(self, window: Window) -> Window:
        """Return the part of the raster that decides which pixels of a window are collar."""
        top, left = max(0, window.top - HALO), max(0, window.left - HALO)
        bottom = min(self.height, window.bottom + HALO)
        right = min(self.width, window.right + HALO)
        return Window(top, left, bottom - top, right - left)

    def mask(self, window: Window, pixels: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
        """Return which pixels of a window are collar, ``(h, w)`` bool.

        Args:
            window: Within the raster.
            pixels: The values as stored of ``view(window)``, ``(h, w, C)``.
            valid: Where those are declared to be valid, ``(h, w)``; None: everywhere. What is
                declared to be invalid counts as having the collar's colour.
        """
        view = self.view(window)
        coloured = ~valid if valid is not None else np.zeros(pixels.shape[:2], bool)
        for colour in self.colours:
            coloured |= colour.covers(pixels)
        rows, columns = self._reach(view)
        # The ring outside the raster is where a collar thinner than a square grows from.
        coloured = np.pad(coloured, ((view.top - rows[0], rows[-1] + 1 - view.bottom),
                                     (view.left - columns[0], columns[-1] + 1 - view.right)))
        collar = _close(_grow(self._squares(rows, columns), coloured))
        top, left = window.top - rows[0], window.left - columns[0]
        return collar[top:top + window.height, left:left + window.width]

    def _reach(self, view: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of pixels of a view, with those beside the raster."""
        return (np.arange(view.top - (view.top == 0),
                          view.bottom + (view.bottom == self.height)),
                np.arange(view.left - (view.left == 0),
                          view.right + (view.right == self.width)))

    def _squares(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return which of the pixels at rows and columns lie in squares of the collar."""
        rows, columns = _square_of(rows, self.height), _square_of(columns, self.width)
        first, low = rows[0], columns[0] // 8
        bits = np.unpackbits(self.packed[first:rows[-1] + 1, low:columns[-1] // 8 + 1], axis=1)
        return bits.view(bool)[rows - first][:, columns - 8 * low]


def _grow(collar: np.ndarray, coloured: np.ndarray) -> np.ndarray:
    """Grow the collar over coloured pixels beside it, ``GROWTH`` times by one pixel."""
    for _ in range(GROWTH):
        grown = collar.copy()
        grown[1:] |= collar[:-1]
        grown[:-1] |= collar[1:]
        grown[:, 1:] |= collar[:, :-1]
        grown[:, :-1] |= collar[:, 1:]
        grown &= coloured
        grown |= collar
        collar = grown
    return collar


def _close(collar: np.ndarray) -> np.ndarray:
    """Add pixels that see the collar within ``CLOSING`` pixels above, below, left and right."""
    enclosed = np.ones_like(collar)
    for lines, closed in ((collar, enclosed), (collar.T, enclosed.T)):
        for step in (1, -1):
            seen = lines[::step].copy()
            for shift in _doublings(CLOSING):
                seen[shift:] |= seen[:-shift].copy()
            closed &= seen[::step]
    return collar | enclosed


def _doublings(distance: int) -> Iterator[int]:
    """Yield shifts which, each applied to what the former gave, add up to a distance."""
    covered = 0
    while covered < distance:
        shift = min(covered + 1, distance - covered)
        yield shift
        covered += shift


def _square_of(pixels: np.ndarray, length: int) -> np.ndarray:
    """Return which square of the ringed map each pixel along an axis lies in."""
    return np.where(pixels < length, pixels // SIDE, -(-length // SIDE)) + 1
