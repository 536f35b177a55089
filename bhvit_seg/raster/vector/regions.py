"""Connected regions of one class over a raster of any size, found strip by strip.

Within a strip every 4-connected patch of one class is a piece. Pieces of one class that touch over
the seam of two strips belong to one region. Only numbers a piece are kept, not pixels: the pieces
of a strip are found again when it is read again.

Regions that are too small are given to the neighbouring class they share the longest border with,
smallest first, so that nothing is left open where they were, and what they separated grows
together.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Callable

import numpy as np

if TYPE_CHECKING:
    from bhvit_seg.raster.vector.features_io import LabelRaster

# Areas are sums of rounded ones.
ROUNDING = 1e-9


class Regions:
    """The regions of some classes of a raster, numbered from 1; 0 stands for everything else.

    Attributes:
        classes: Class id of each region.
        pixels: Pixels of each region.
        areas: Area of each region, as ``pixel_areas`` say.

    Args:
        labels: The raster.
        chosen: Ids of the classes.
        pixel_areas: Areas of the pixels of rows, see
            :meth:`~bhvit_seg.raster.vector.geodesy.Geodesy.pixel_areas`.
        min_area: Area that regions, of any class, need to stay.
        min_pixels: The same as a number of pixels.
        on_strip: Called after each strip.
    """

    def __init__(self, labels: LabelRaster, chosen: Collection[int],
                 pixel_areas: Callable[[range, int], np.ndarray], min_area: float = 0,
                 min_pixels: int = 0, on_strip: Callable[[], None] = lambda: None) -> None:
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
    """Collects the pieces of all strips, and joins them to regions; piece 0 is nodata."""

    def __init__(self, min_area: float, min_pixels: int) -> None:
        self._by_area = min_area > 0
        self._smallest = min_area or min_pixels
        self.firsts: list[int] = []
        self.pixels = [np.zeros(1, np.int64)]
        self.areas = [np.zeros(1)]
        self._classes = [np.full(1, -1)]
        self._seams = [np.empty((0, 2), np.int64)]
        self._borders = [np.empty((3, 0), np.int64)]
        # Of the row above the next strip: class ids, pieces, and which of these are too small.
        self._above: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def add(self, ids: np.ndarray, pieces: np.ndarray, pixel_areas: np.ndarray) -> None:
        """Add a strip: class ids and pieces (h, w), and the areas of pixels, of any such shape."""
        first = self.firsts[-1] + len(self.pixels[-1]) if self.firsts else 1
        self.firsts.append(first)
        self.pixels.append(np.bincount(pieces.ravel())[1:])
        if pixel_areas.size == 1:
            self.areas.append(self.pixels[-1] * pixel_areas.item())
        else:
            weights = np.broadcast_to(pixel_areas, pieces.shape).ravel()
            self.areas.append(np.bincount(pieces.ravel(), weights)[1:])
        sizes = self.areas[-1] if self._by_area else self.pixels[-1]
        classes = np.empty(len(self.pixels[-1]) + 1, np.int64)
        classes[pieces] = ids
        self._classes.append(classes[1:])
        small = np.append(False, sizes < self._smallest)[pieces]
        pieces[pieces > 0] += first - 1
        if self._above is not None:
            ids_above, pieces_above, _ = self._above
            joined = (ids_above == ids[0]) & (pieces_above > 0)
            pairs = np.stack([pieces_above[joined], pieces[0, joined]], axis=1)
            self._seams.append(np.unique(pairs, axis=0))
        if self._smallest > 0:
            self._add_borders(pieces[:, :-1], pieces[:, 1:], small[:, :-1] | small[:, 1:])
            self._add_borders(pieces[:-1], pieces[1:], small[:-1] | small[1:])
            if self._above is not None:
                self._add_borders(pieces_above, pieces[0], self._above[2] | small[0])
        self._above = ids[-1], pieces[-1], small[-1]

    def _add_borders(self, one: np.ndarray, other: np.ndarray, small: np.ndarray) -> None:
        """Note the borders between neighbouring pixels' pieces where one of them is too small.

        That is all borders of a region that is too small: its pieces are even smaller.
        """
        shared = small & (one != other) & (one > 0) & (other > 0)
        self._borders.append(_count_pairs(one[shared], other[shared], np.ones(shared.sum(), int)))

    def join(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the region of each piece, and the class of each region; -1 is none."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        classes = np.concatenate(self._classes)
        seams = np.concatenate(self._seams)
        graph = coo_matrix((np.ones(len(seams), bool), seams.T), shape=(len(classes),) * 2)
        count, region_of = connected_components(graph, directed=False)
        class_of = np.empty(count, np.int64)
        class_of[region_of] = classes
        if self._smallest > 0:
            sizes = self.areas if self._by_area else self.pixels
            sizes = np.bincount(region_of, np.concatenate(sizes))
            one, other, lengths = np.concatenate(self._borders, axis=1)
            borders = _count_pairs(region_of[one], region_of[other], lengths)
            merging = _Merging(sizes, class_of, borders, self._smallest)
            roots, numbers = np.unique(merging.run(), return_inverse=True)
            region_of, class_of = numbers[region_of], np.array(merging.classes)[roots]
        return region_of, class_of


def _count_pairs(one: np.ndarray, other: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sum the lengths of equal pairs, in either order: (3, n) lower, higher, length."""
    pairs = (np.minimum(one, other).astype(np.int64) << 32) | np.maximum(one, other)
    pairs, index = np.unique(pairs, return_inverse=True)
    sums = np.bincount(index, lengths, len(pairs)).astype(np.int64)
    return np.stack([pairs >> 32, pairs & 0xffffffff, sums])


class _Merging:
    """Gives regions that are too small to their neighbours.

    Args:
        sizes, classes: Of each region.
        borders: (3, n) two regions and the length of their border; complete for small ones.
        smallest: The size that is large enough.
    """

    def __init__(self, sizes: np.ndarray, classes: np.ndarray, borders: np.ndarray,
                 smallest: float) -> None:
        self._sizes = sizes.tolist()
        self.classes = classes.tolist()
        self._smallest = smallest
        self._parents = list(range(len(sizes)))
        small = (classes >= 0) & (sizes < smallest)
        self._waiting = [(self._sizes[region], region) for region in np.flatnonzero(small).tolist()]
        heapq.heapify(self._waiting)
        self._borders = {region: Counter() for _, region in self._waiting}
        for one, other, length in borders.T.tolist():
            for region, neighbour in ((one, other), (other, one)):
                if region in self._borders:
                    self._borders[region][neighbour] += length

    def run(self) -> list[int]:
        """Return what region each region has become part of."""
        while self._waiting:
            size, region = heapq.heappop(self._waiting)
            if self._root(region) == region and self._sizes[region] == size:
                self._give_away(region)
        return [self._root(region) for region in range(len(self._parents))]

    def _root(self, region: int) -> int:
        parents = self._parents
        while parents[region] != region:
            parents[region] = parents[parents[region]]
            region = parents[region]
        return region

    def _give_away(self, region: int) -> None:
        votes: Counter[int] = Counter()
        takers: dict[int, set[int]] = {}
        for neighbour, length in self._borders[region].items():
            neighbour = self._root(neighbour)
            if neighbour != region:
                taker = self.classes[neighbour]
                votes[taker] += length
                takers.setdefault(taker, set()).add(neighbour)
        if not votes:
            # Alone in nodata: nothing it could be part of.
            self.classes[region] = -1
            return
        winner = min(votes, key=lambda taker: (-votes[taker], taker))
        members = sorted({region, *takers[winner]})
        root = members[0]
        self.classes[root] = winner
        self._sizes[root] = sum(self._sizes[member] for member in members)
        for member in members[1:]:
            self._parents[member] = root
        borders = [self._borders.pop(member, None) for member in members]
        if self._sizes[root] < self._smallest:
            largest = max(borders, key=len)
            for other in borders:
                if other is not largest:
                    largest.update(other)
            self._borders[root] = largest
            heapq.heappush(self._waiting, (self._sizes[root], root))
