"""The search for an undeclared collar, from the outer edge of a raster inwards.

It reads only as far inwards as the collar goes: first the parts of the raster at its outer edge,
then, repeatedly, those that the collar was found to lead into. Memory is a byte for each square of
8 x 8 pixels and colour that is looked for, twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from bhvit_seg.inference.windows import Window
from bhvit_seg.raster.collars import SIDE, Collar, Colour

# Squares along the outer edge that must have the colour, one after the other, to begin a collar.
RUN = 8
# 'auto': the fraction of the outermost pixels that must have exactly the colour. Dark water or a
# bright roof at the edge is rarely 0 or 255 in all bands, and never along much of the edge.
AUTO_SHARE = 0.02
CHUNK = 1024


class StoredPixels(Protocol):
    """What is searched: a :class:`~bhvit_seg.raster.reading.RasterSource`, for one.

    Attributes:
        height: Rows.
        width: Columns.
        block_shape: Rows and columns of the blocks of the file.
    """

    height: int
    width: int
    block_shape: tuple[int, int]

    def decode(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """Return values ``(h, w, C)``, and where they are valid, ``(h, w)``, or None."""


def find_collar(source: StoredPixels, colours: Iterable[Colour], only_frequent: bool) -> Collar:
    """Find the collar of any of some colours.

    Args:
        source: The raster; each part is read at most once.
        colours: The colours.
        only_frequent: Drop colours that few of the outermost pixels have exactly.

    Raises:
        UserError: The raster cannot be read.
    """
    survey = _Survey(source, colours)
    survey.read(survey.outermost())
    survey.begin(only_frequent)
    while waiting := survey.spread():
        survey.read(waiting)
    return survey.collar()


class _Survey:
    """The squares of a raster that have a collar's colour, and which of them were reached.

    Both are kept by colour, ``(rows + 2, columns + 2)``: a ring of squares lies outside the
    raster. One of the ring has a colour where all the outermost pixels beside it have.
    """

    def __init__(self, source: StoredPixels, colours: Iterable[Colour]) -> None:
        self.source = source
        self.size = -(-source.height // SIDE), -(-source.width // SIDE)
        shape = self.size[0] + 2, self.size[1] + 2
        self.squares = {colour: np.zeros(shape, bool) for colour in colours}
        self.reached = {colour: np.zeros(shape, bool) for colour in self.squares}
        self.exact = dict.fromkeys(self.squares, 0)
        self.unread = set(_cut(source))

    def outermost(self) -> list[Window]:
        """Return the chunks at the raster's outer edge."""
        return sorted(chunk for chunk in self.unread if any(self._edges(chunk)))

    def read(self, chunks: list[Window]) -> None:
        """Find the coloured squares of chunks."""
        for chunk in chunks:
            self._read(chunk)

    def _read(self, chunk: Window) -> None:
        self.unread.remove(chunk)
        pixels, valid = self.source.decode(chunk)
        edges = list(self._edges(chunk))
        for colour, squares in self.squares.items():
            covered = colour.covers(pixels)
            for edge in edges:
                exact = (pixels[edge] == colour.exact).all(axis=1)
                self.exact[colour] += int((exact if valid is None else exact & valid[edge]).sum())
            if valid is not None:
                covered |= ~valid
            rows, columns = _slices(chunk)
            squares[rows, columns] = _whole(_whole(covered).T).T
            for row, column in edges:
                beside = (rows, column) if isinstance(row, slice) else (row, columns)
                squares[beside] = _whole(covered[row, column][None])[0]

    def _edges(self, chunk: Window) -> Iterator[tuple]:
        """Yield the index of each line of a chunk's pixels that is outermost in the raster."""
        if chunk.top == 0:
            yield 0, slice(None)
        if chunk.bottom == self.source.height:
            yield -1, slice(None)
        if chunk.left == 0:
            yield slice(None), 0
        if chunk.right == self.source.width:
            yield slice(None), -1

    def begin(self, only_frequent: bool) -> None:
        """Reach the squares of the ring where a collar begins.

        Args:
            only_frequent: Whether to drop colours that too few of the outermost pixels have.
        """
        outermost = 2 * (self.source.height + self.source.width)
        for colour in list(self.squares):
            if only_frequent and self.exact[colour] < AUTO_SHARE * outermost:
                del self.squares[colour], self.reached[colour]
                continue
            squares = self.squares[colour]
            for (row, inner_row), (column, inner_column) in itertools.product(
                    ((0, 1), (-1, -2)), repeat=2):
                squares[row, column] = squares[row, inner_column] and squares[inner_row, column]
            rows, columns = _ring(squares.shape)
            self.reached[colour][rows, columns] = _runs(squares[rows, columns])

    def spread(self) -> list[Window]:
        """Spread over the squares known so far; return the chunks that it reaches."""
        near = np.zeros(self.size, bool)
        for colour, reached in self.reached.items():
            flood(self.squares[colour], reached)
            near |= (reached[:-2, 1:-1] | reached[2:, 1:-1] | reached[1:-1, :-2]
                     | reached[1:-1, 2:])
        return sorted(chunk for chunk in self.unread
                      if near[_slices(chunk, ring=0)].any())

    def collar(self) -> Collar:
        reached = np.zeros((self.size[0] + 2, self.size[1] + 2), bool)
        colours = []
        for colour, part in self.reached.items():
            if part.any():
                colours.append(colour)
                reached |= part
        return Collar(self.source.height, self.source.width, tuple(colours),
                      np.packbits(reached, axis=1))


def flood(passable: np.ndarray, reached: np.ndarray) -> None:
    """Spread ``reached`` over the 4-connected parts of ``passable`` that it touches, in place.

    Args:
        passable: ``(h, w)`` bool.
        reached: ``(h, w)`` bool, within ``passable``.
    """
    for row in np.flatnonzero(reached.any(axis=1)):
        _spread_row(passable[row], reached[row])
    last = len(passable) - 1
    while True:
        from_above = np.flatnonzero((reached[:-1] & passable[1:] & ~reached[1:]).any(axis=1)) + 1
        from_below = np.flatnonzero((reached[1:] & passable[:-1] & ~reached[:-1]).any(axis=1))
        if not len(from_above) and not len(from_below):
            return
        for start in from_above:
            row = start
            while row <= last and _enter(passable[row], reached[row], reached[row - 1]):
                row += 1
        for start in from_below[::-1]:
            row = start
            while row >= 0 and _enter(passable[row], reached[row], reached[row + 1]):
                row -= 1


def _enter(passable: np.ndarray, reached: np.ndarray, neighbour: np.ndarray) -> bool:
    """Spread into a row from the row beside it; return whether anything was new."""
    new = neighbour & passable & ~reached
    if not new.any():
        return False
    reached |= new
    _spread_row(passable, reached)
    return True


def _spread_row(passable: np.ndarray, reached: np.ndarray) -> None:
    """Spread along one row to the ends of the runs that were reached."""
    run = np.cumsum(np.diff(passable, prepend=False))
    hit = np.zeros(run[-1] + 1, bool)
    hit[run[reached]] = True
    np.logical_and(hit[run], passable, out=reached)


def _whole(covered: np.ndarray) -> np.ndarray:
    """Return which eighths of each row ``(h, w)`` are covered wholly, ``(h, ceil(w / 8))``."""
    short = -covered.shape[1] % SIDE
    if short:
        covered = np.pad(covered, ((0, 0), (0, short)), constant_values=True)
    return np.packbits(covered, axis=1) == 0xFF


def _slices(chunk: Window, ring: int = 1) -> tuple[slice, slice]:
    """Return the squares of a chunk in a map with (1) or without (0) a ring."""
    return (slice(chunk.top // SIDE + ring, -(-chunk.bottom // SIDE) + ring),
            slice(chunk.left // SIDE + ring, -(-chunk.right // SIDE) + ring))


def _ring(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the outermost squares, once around clockwise."""
    rows, columns = shape[0] - 1, shape[1] - 1
    along, down = np.arange(columns), np.arange(rows)
    return (np.concatenate([0 * along, down, rows + 0 * along, rows - down]),
            np.concatenate([along, columns + 0 * down, columns - along, 0 * down]))


def _runs(ring: np.ndarray) -> np.ndarray:
    """Return which squares of the ring lie in a run of at least ``RUN`` that are set."""
    starts = np.logical_and.reduce([np.roll(ring, -k) for k in range(RUN)])
    return np.logical_or.reduce([np.roll(starts, k) for k in range(RUN)])


def _cut(source: StoredPixels) -> Iterator[Window]:
    """Yield parts of a raster, whole squares and whole blocks of its file where these are small.

    A file in strips is cut into strips, as each would be decoded again for every part of it.
    """
    height, width = source.block_shape
    if width >= source.width:
        columns, rows = source.width, max(1, CHUNK * CHUNK // source.width)
    else:
        columns, rows = -(-CHUNK // width) * width, CHUNK
    rows = -(-rows // height) * height if height <= CHUNK else rows
    rows, columns = -(-rows // SIDE) * SIDE, -(-columns // SIDE) * SIDE
    for top in range(0, source.height, rows):
        for left in range(0, source.width, columns):
            yield Window(top, left, min(rows, source.height - top),
                         min(columns, source.width - left))
