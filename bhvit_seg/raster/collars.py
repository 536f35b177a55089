"""Undeclared collars: the black or white border of an image that its file declares valid.

Lossy compression turns a collar into noise of a few grey levels, and a threshold alone would also
remove shadows and roofs. A collar is therefore connected to the raster's edge: squares of 8 x 8
pixels of its colour spread from square to square, starting where 64 successive pixels of the outer
edge have that colour. It then grows by at most 8 pixels towards the image, so that narrow dark
roads are not followed, and enclosed specks are closed.

:func:`find_collar` finds the squares once, reading only as far inwards as needed. :class:`Collar`
decides pixels of each window from :data:`HALO` pixels around it, independently of the windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.inference.windows import Window, cut_blocks

COLOURS = ('black', 'white')
SIDE = 8
# The size of a block of JPEG, in which compression mixes collar and image; specks are its noise.
GROWTH = CLOSING = 8
HALO = GROWTH + CLOSING
SHIFTS = 1, 2, 4, 1  # each applied to what the former gave: CLOSING pixels in all
# Squares along the outer edge that must have the colour, one after the other, to begin a collar.
RUN = 8
# 'auto': the fraction of the outermost pixels that must have exactly the colour. Dark water or a
# bright roof at the edge is rarely 0 or 255 in all bands, and never along much of the edge.
AUTO_SHARE = 0.02
CHUNK = 1024


class Readable(Protocol):
    """What is read of a :class:`bhvit_seg.raster.reading.RasterSource`."""

    height: int
    width: int
    block_shape: tuple[int, int]

    def decode(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]: ...


class Colour(NamedTuple):
    """A collar's colour: the range of stored values in all bands."""

    name: str
    exact: float
    low: float
    high: float

    def covers(self, pixels: np.ndarray) -> np.ndarray:
        """Return where pixels ``(h, w, C)`` have the colour, ``(h, w)`` bool."""
        found = np.ones(pixels.shape[:2], bool)
        for band in np.moveaxis(pixels, 2, 0):
            found &= (band >= self.low) & (band <= self.high)
        return found


def make_colour(name: str, dtype: np.dtype, tolerance: float,
                value_range: tuple[float, float] | None) -> Colour:
    """Return the stored values of black or white.

    Black is 0; white is 255 in 8 bits, else the upper end of ``value_range``, else 65535 in 16
    bits.

    Args:
        name: ``'black'`` or ``'white'``.
        tolerance: Largest difference from the colour: of 255 in 8 bits or with a ``value_range``;
            else in units of the raster, as few rasters use the whole range of 16 bits.
        value_range: Values that are scaled to 0 and 255.
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
    most = np.inf
    if dtype.kind in 'iu':
        tolerance, white, most = int(tolerance), int(white), int(np.iinfo(dtype).max)
    if name == 'white':
        return Colour(name, white, white - tolerance, most)
    return Colour(name, 0, 0 if dtype.kind == 'u' else -tolerance, tolerance)


@dataclass(frozen=True, eq=False)
class Collar:
    """The collar of one raster: a bit for each square of 8 x 8 pixels, with a ring of squares
    outside the raster, ``(rows + 2, ceil((columns + 2) / 8))`` uint8."""

    height: int
    width: int
    colours: tuple[Colour, ...]
    packed: np.ndarray

    def touches(self, window: Window) -> bool:
        """Whether any pixel of a window may belong to the collar; may be wrongly True."""
        rows, columns = self._squares_of(self.view(window))
        return bool(self.packed[rows[0]:rows[-1] + 1, columns[0] // 8:columns[-1] // 8 + 1].any())

    def view(self, window: Window) -> Window:
        """Return the part of the raster that determines the collar in a window."""
        top, left = max(0, window.top - HALO), max(0, window.left - HALO)
        return Window(top, left, min(self.height, window.bottom + HALO) - top,
                      min(self.width, window.right + HALO) - left)

    def mask(self, window: Window, pixels: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
        """Return the collar in a window within the raster, ``(h, w)`` bool, from the stored
        ``pixels`` ``(h, w, C)`` of ``view(window)`` and where they are declared valid (None:
        everywhere)."""
        view = self.view(window)
        coloured = np.zeros(pixels.shape[:2], bool) if valid is None else ~valid
        for colour in self.colours:
            coloured |= colour.covers(pixels)
        # A line of the ring outside the raster is where a collar thinner than a square grows from.
        above, left = int(view.top == 0), int(view.left == 0)
        coloured = np.pad(coloured, ((above, int(view.bottom == self.height)),
                                     (left, int(view.right == self.width))))
        rows, columns = self._squares_of(view)
        first, low = rows[0], columns[0] // 8
        squares = np.unpackbits(self.packed[first:rows[-1] + 1, low:columns[-1] // 8 + 1], axis=1)
        collar = squares.view(bool)[np.ix_(rows - first, columns - 8 * low)]
        collar = _close(_grow(collar, coloured))
        top, left = window.top - view.top + above, window.left - view.left + left
        return collar[top:top + window.height, left:left + window.width]

    def _squares_of(self, view: Window) -> list[np.ndarray]:
        """Return the squares of the rows and columns of a view, and of the ring."""
        return [np.where((pixels := np.arange(first - (first == 0), stop + (stop == length)))
                         < length, pixels // SIDE, -(-length // SIDE)) + 1
                for first, stop, length in ((view.top, view.bottom, self.height),
                                            (view.left, view.right, self.width))]


def _grow(collar: np.ndarray, coloured: np.ndarray) -> np.ndarray:
    """Grow the collar over coloured pixels beside it, ``GROWTH`` times by one pixel."""
    for _ in range(GROWTH):
        collar = collar | coloured & _beside(collar)
    return collar


def _beside(found: np.ndarray) -> np.ndarray:
    """Return the pixels above, below, left or right of ``found``, ``(h, w)`` bool."""
    beside = np.zeros_like(found)
    for there, here in ((beside, found), (beside.T, found.T)):
        there[1:] |= here[:-1]
        there[:-1] |= here[1:]
    return beside


def _close(collar: np.ndarray) -> np.ndarray:
    """Add pixels with the collar within ``CLOSING`` pixels above, below, left and right."""
    enclosed = np.ones_like(collar)
    for lines, closed in ((collar, enclosed), (collar.T, enclosed.T)):
        for step in (1, -1):
            seen = lines[::step].copy()
            for shift in SHIFTS:
                seen[shift:] |= seen[:-shift].copy()
            closed &= seen[::step]
    return collar | enclosed


def find_collar(source: Readable, colours: Iterable[Colour], only_frequent: bool) -> Collar:
    """Find the collar of some colours, reading each part of the raster at most once.
    ``only_frequent`` drops colours that few of the outermost pixels have exactly."""
    height, width = source.height, source.width
    # With a ring of squares outside the raster, where lines of outermost pixels are repeated.
    shape = -(-height // SIDE) + 2, -(-width // SIDE) + 2
    squares = {colour: np.zeros(shape, bool) for colour in colours}
    exact = dict.fromkeys(squares, 0)
    unread = dict.fromkeys(_cut(source))
    waiting = [chunk for chunk in unread if 0 in (chunk.top, chunk.left)
               or chunk.bottom == height or chunk.right == width]
    reached: dict[Colour, np.ndarray] | None = None
    while waiting:
        for chunk in waiting:
            _read(source, chunk, squares, exact)
            del unread[chunk]
        if reached is None:
            least = AUTO_SHARE * 2 * (height + width) if only_frequent else 0
            squares = {colour: part for colour, part in squares.items() if exact[colour] >= least}
            reached = {colour: _begin(part) for colour, part in squares.items()}
        near = np.zeros(shape, bool)
        for colour, found in reached.items():
            flood(squares[colour], found)
            near |= _beside(found)
        waiting = [chunk for chunk in unread if near[_ringed(source, chunk)].any()]
    found = {colour: part for colour, part in reached.items() if part.any()}
    return Collar(height, width, tuple(found), np.packbits(
        np.logical_or.reduce([np.zeros(shape, bool), *found.values()]), axis=1))


def _read(source: Readable, chunk: Window, squares: dict[Colour, np.ndarray],
          exact: dict[Colour, int]) -> None:
    """Find a chunk's squares of each colour; count outermost pixels that have it exactly."""
    pixels, valid = source.decode(chunk)
    at = _ringed(source, chunk)
    lines, outermost = [], []
    for axis, (first, stop, length) in enumerate(((chunk.top, chunk.bottom, source.height),
                                                  (chunk.left, chunk.right, source.width))):
        lines.append(np.arange(SIDE * (at[axis].start - 1), SIDE * (at[axis].stop - 1)).clip(
            first, stop - 1) - first)
        outermost += [(0, axis)] * (first == 0) + [(-1, axis)] * (stop == length)
    for colour, found in squares.items():
        for line, axis in outermost:
            hits = (pixels.take(line, axis) == colour.exact).all(axis=1)
            exact[colour] += int((hits if valid is None else hits & valid.take(line, axis)).sum())
        covered = colour.covers(pixels)
        if valid is not None:
            covered |= ~valid
        covered = covered[lines[0]].reshape(len(lines[0]) // SIDE, SIDE, -1).all(axis=1)
        found[at] = np.packbits(covered[:, lines[1]], axis=1) == 0xFF


def _ringed(source: Readable, chunk: Window) -> tuple[slice, slice]:
    """Return the squares of a chunk and of the ring beside it."""
    return tuple(slice(first // SIDE + (first > 0), -(-stop // SIDE) + 1 + (stop == length))
                 for first, stop, length in ((chunk.top, chunk.bottom, source.height),
                                             (chunk.left, chunk.right, source.width)))


def _begin(passable: np.ndarray) -> np.ndarray:
    """Return the squares of the ring where a collar begins."""
    for (row, inner_row), (column, inner_column) in itertools.product(((0, 1), (-1, -2)), repeat=2):
        passable[row, column] = passable[row, inner_column] and passable[inner_row, column]
    last_row, last_column = passable.shape[0] - 1, passable.shape[1] - 1
    along, down = np.arange(last_column), np.arange(last_row)
    # Once around, clockwise.
    ring = (np.concatenate([0 * along, down, last_row + 0 * along, last_row - down]),
            np.concatenate([along, last_column + 0 * down, last_column - along, 0 * down]))
    starts = np.logical_and.reduce([np.roll(passable[ring], -k) for k in range(RUN)])
    reached = np.zeros_like(passable)
    reached[ring] = np.logical_or.reduce([np.roll(starts, k) for k in range(RUN)])
    return reached


def flood(passable: np.ndarray, reached: np.ndarray) -> None:
    """Spread ``reached`` over the 4-connected parts of ``passable`` that it touches, in place."""
    before = -1
    while before != (before := np.count_nonzero(reached)):
        for step in (1, -1):
            above = np.zeros(passable.shape[1], bool)
            for line, found in zip(passable[::step], reached[::step]):
                found |= above & line
                if found.any():
                    # To the ends of the runs that were reached.
                    run = np.cumsum(np.diff(line, prepend=False))
                    hit = np.zeros(run[-1] + 1, bool)
                    hit[run[found]] = True
                    np.logical_and(hit[run], line, out=found)
                above = found


def _cut(source: Readable) -> list[Window]:
    """Cut a raster into whole squares and whole blocks of its file; files in strips into strips."""
    height, width = source.block_shape
    if width >= source.width:
        columns, rows = source.width, max(1, CHUNK * CHUNK // source.width)
    else:
        columns, rows = -(-CHUNK // width) * width, CHUNK
    rows = -(-rows // height) * height if height <= CHUNK else rows
    sides = tuple(-(-side // SIDE) * SIDE for side in (rows, columns))
    return list(cut_blocks((source.height, source.width), sides))
