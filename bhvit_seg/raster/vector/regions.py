"""Connected regions of one class in a raster of any size, found strip by strip.

A piece is a 4-connected patch of one class within a strip; pieces that touch across a seam form one
region. Only a few numbers per piece are kept. Regions that are too small are merged into the
neighbouring class with the longest common border, smallest first, so that no gaps are left and
regions that they separated are joined.

``rasterio.features.sieve`` is four times as fast, but counts pixels instead of square metres, and
merges into the largest neighbour: a car on a road, in two pixels at its edge, would join the field
beside it and narrow or cut the road.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Callable

import numpy as np

if TYPE_CHECKING:
    from bhvit_seg.raster.vector.features_io import LabelRaster

ROUNDING = 1e-9  # areas are sums of rounded ones
HASH = 2654435761  # scatters consecutive numbers (Knuth's multiplicative hash)


class Regions:
    """The regions of the ``chosen`` classes of a raster, numbered from 1; 0 is everything else.

    ``pixel_areas`` is that of a ``Geodesy``; ``min_area`` and ``min_pixels`` apply to all classes.
    ``classes``, ``pixels`` and ``areas`` are class id, number of pixels and area of each region.
    """

    def __init__(self, labels: LabelRaster, chosen: Collection[int],
                 pixel_areas: Callable[[range, int], np.ndarray], min_area: float,
                 min_pixels: int, on_strip: Callable[[], None]) -> None:
        self._labels = labels
        pieces = _Pieces(min_area * (1 - ROUNDING), min_pixels)
        for rows in labels.strips:
            ids = labels.read(rows)
            pieces.add(ids, self._number(ids), pixel_areas(rows, labels.shape[1]))
            on_strip()
        self._firsts = pieces.firsts
        region_of, class_of = pieces.join()
        listed = np.isin(class_of, list(chosen))
        self._number_of = (np.cumsum(listed) * listed)[region_of].astype(np.int32)
        self.classes = np.concatenate([[-1], class_of[listed]])
        self.pixels, self.areas = (
            np.bincount(self._number_of, np.concatenate(sizes), len(self.classes))
            for sizes in (pieces.pixels, pieces.areas))

    def read(self, strip: int) -> np.ndarray:
        """Return the region of each pixel of a strip, int32 (h, w)."""
        pieces = self._number(self._labels.read(self._labels.strips[strip]))
        first = self._firsts[strip]
        lookup = np.zeros(pieces.max() + 1, np.int32)
        lookup[1:] = self._number_of[first:first + len(lookup) - 1]
        return lookup[pieces]

    def _number(self, ids: np.ndarray) -> np.ndarray:
        """Number the pieces of a strip (h, w) from 1 on; nodata is 0."""
        from skimage.measure import label

        nodata = self._labels.nodata
        return label(ids, connectivity=1, background=-1 if nodata is None else nodata)


class _Pieces:
    """Collects the pieces of all strips and joins them to regions; piece 0 is nodata."""

    def __init__(self, min_area: float, min_pixels: int) -> None:
        self._by_area = min_area > 0
        self._smallest = min_area or min_pixels
        self.firsts: list[int] = []
        self.pixels = [np.zeros(1, np.int64)]
        self.areas = [np.zeros(1)]
        self._classes = [np.full(1, -1)]
        self._seams = [np.empty((0, 2), np.int64)]
        self._borders = [np.empty((3, 0), np.int64)]
        self._above: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def add(self, ids: np.ndarray, pieces: np.ndarray, pixel_areas: np.ndarray) -> None:
        """Add a strip: class ids and pieces (h, w), and areas of pixels that broadcast to them."""
        first = self.firsts[-1] + len(self.pixels[-1]) if self.firsts else 1
        self.firsts.append(first)
        self.pixels.append(np.bincount(pieces.ravel())[1:])
        self.areas.append(
            self.pixels[-1] * pixel_areas.item() if pixel_areas.size == 1 else
            np.bincount(pieces.ravel(), np.broadcast_to(pixel_areas, pieces.shape).ravel())[1:])
        classes = np.empty(len(self.pixels[-1]) + 1, np.int64)
        classes[pieces] = ids
        self._classes.append(classes[1:])
        sizes = self.areas[-1] if self._by_area else self.pixels[-1]
        small = np.append(False, sizes < self._smallest)[pieces]
        pieces[pieces > 0] += first - 1
        # Below the last row of the strip before: class ids, pieces, and which are too small.
        above = self._above or (ids[0], np.zeros_like(pieces[0]), np.zeros_like(small[0]))
        self._above = ids[-1], pieces[-1], small[-1]
        ids, pieces, small = (np.concatenate([row[None], rows])
                              for row, rows in zip(above, (ids, pieces, small)))
        joined = (ids[0] == ids[1]) & (pieces[0] > 0)
        self._seams.append(np.unique(pieces[:2, joined].T, axis=0))
        if self._smallest > 0:
            for one, other, either in (
                    (pieces[1:, :-1], pieces[1:, 1:], small[1:, :-1] | small[1:, 1:]),
                    (pieces[:-1], pieces[1:], small[:-1] | small[1:])):
                # All borders of small regions, since their pieces are smaller still.
                shared = either & (one != other) & (one > 0) & (other > 0)
                self._borders.append(_count_pairs(
                    one[shared], other[shared], np.ones(np.count_nonzero(shared), int)))

    def join(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the region of each piece, and the class of each region; -1 is none."""
        classes = np.concatenate(self._classes)
        count, region_of = components(len(classes), *np.concatenate(self._seams).T)
        class_of = np.empty(count, np.int64)
        class_of[region_of] = classes
        if self._smallest > 0:
            sizes = np.concatenate(self.areas if self._by_area else self.pixels)
            one, other, lengths = np.concatenate(self._borders, axis=1)
            borders = _count_pairs(region_of[one], region_of[other], lengths)
            merged_in, class_of = _merge(np.bincount(region_of, sizes), class_of, borders,
                                         self._smallest)
            region_of = merged_in[region_of]
        return region_of, class_of


def _count_pairs(one: np.ndarray, other: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sum the lengths of equal pairs, in either order: (3, n) lower, higher, length."""
    pairs = (np.minimum(one, other).astype(np.int64) << 32) | np.maximum(one, other)
    pairs, index = np.unique(pairs, return_inverse=True)
    sums = np.bincount(index, lengths, len(pairs)).astype(np.int64)
    return np.stack([pairs >> 32, pairs & 0xffffffff, sums])


def _merge(sizes: np.ndarray, classes: np.ndarray, borders: np.ndarray, smallest: float
           ) -> tuple[np.ndarray, np.ndarray]:
    """Merge small regions into neighbours by their borders (3, n): region, region, length. Returns
    the new region of each, and the class of each new region (-1: surrounded by nodata)."""
    merged_in = np.arange(len(sizes))
    while True:
        small = (classes >= 0) & (sizes < smallest)
        region, neighbour = np.concatenate([borders[:2], borders[1::-1]], axis=1)
        length = np.tile(borders[2], 2)[small[region]]
        region, neighbour = region[small[region]], neighbour[small[region]]
        if not len(region):
            return merged_in, np.where(small, -1, classes)
        # Ties are broken by the hash, or rounds would run across the raster.
        order = np.lexsort((np.arange(len(sizes)) * HASH % (1 << 32), sizes))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        lowest = np.full(len(sizes), len(sizes))
        np.minimum.at(lowest, region, np.where(small[neighbour], rank[neighbour], len(sizes)))
        now = rank[region] < lowest[region]
        region, neighbour, length = region[now], neighbour[now], length[now]
        votes, index = np.unique(region << 8 | classes[neighbour], return_inverse=True)
        order = np.lexsort((votes, -np.bincount(index, length), votes >> 8))
        merging, first = np.unique(votes[order] >> 8, return_index=True)
        classes[merging] = votes[order][first] & 255
        joined = classes[region] == classes[neighbour]
        count, number = components(len(sizes), region[joined], neighbour[joined])
        merged_in, sizes = number[merged_in], np.bincount(number, sizes)
        classes_before, classes = classes, np.empty(count, np.int64)
        classes[number] = classes_before
        borders = _count_pairs(number[borders[0]], number[borders[1]], borders[2])
        small = sizes < smallest
        borders = borders[:, (borders[0] != borders[1]) & (small[borders[0]] | small[borders[1]])]


def components(count: int, one: np.ndarray, other: np.ndarray) -> tuple[int, np.ndarray]:
    """Return how many groups pairs of ``count`` numbers make, and the group of each number."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return connected_components(graph, directed=False)
