"""Token layout: rows, maps, and attention windows.

Between blocks tokens are rows ``(B · H · W, C)`` in row-major order. Windows at the lower and right
border are smaller instead of padded, so that only real tokens are attended to, quantized and
counted in batch statistics.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class MapShape(NamedTuple):
    """Layout of token rows: batch size, height and width of the map in tokens."""

    batch: int
    height: int
    width: int

    @classmethod
    def of(cls, maps: Tensor) -> MapShape:
        return cls(maps.shape[0], *maps.shape[2:])

    def to_map(self, rows: Tensor) -> Tensor:
        """View rows ``(B · H · W, C)`` as a map ``(B, C, H, W)`` in channels-last memory."""
        return rows.view(*self, rows.shape[1]).permute(0, 3, 1, 2)


def to_rows(maps: Tensor) -> Tensor:
    """Turn a map ``(B, C, H, W)`` into rows ``(B · H · W, C)``; a view if it is channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


class Windows(NamedTuple):
    """Windows of one size: the part of the map that they tile, and their number."""

    rows: slice
    cols: slice
    grid: tuple[int, int]
    size: tuple[int, int]

    @property
    def count(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        return self.size[0] * self.size[1]

    def split(self, maps: Tensor) -> Tensor:
        """Cut ``(B, H, W, C)`` into ``(B, windows, tokens, C)``."""
        part = maps[:, self.rows, self.cols].unflatten(2, (self.grid[1], self.size[1]))
        part = part.unflatten(1, (self.grid[0], self.size[0])).transpose(2, 3)
        return part.flatten(1, 2).flatten(2, 3)

    def join(self, windows: Tensor) -> Tensor:
        """Undo :meth:`split`: ``(B, rows, cols, C)`` of this part of the map."""
        part = windows.unflatten(2, self.size).unflatten(1, self.grid).transpose(2, 3)
        return part.flatten(3, 4).flatten(1, 2)


def tile(height: int, width: int, window: int) -> list[list[Windows]]:
    """Tile a map with windows: one to two rows of one to two parts, in row-major order."""

    def cut(length: int) -> list[tuple[slice, int, int]]:
        whole = length // window
        parts = [(slice(0, whole * window), whole, window)] if whole else []
        if length % window:
            parts.append((slice(whole * window, length), 1, length % window))
        return parts

    return [[Windows(r, c, (nr, nc), (hr, wc)) for c, nc, wc in cut(width)]
            for r, nr, hr in cut(height)]
