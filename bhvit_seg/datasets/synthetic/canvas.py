"""The layers of a scene: colour, height and labels, and oriented shapes in them."""

from __future__ import annotations

import cv2
import numpy as np

METRES_PER_PIXEL = 0.5
SUBPIXEL_BITS = 4


class Canvas:
    """Layers of one scene, painted from the ground upwards.

    Attributes:
        colour: Reflectance (H, W, 3) float32, red, green, blue, 0..1.
        height: Above ground in metres, (H, W) float32.
        road: (H, W) uint8, 1 where a road is, also below other objects.
        taken: (H, W) bool, where no further object may be placed.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng = rng
        self.size = size
        self.colour = np.zeros((*size, 3), np.float32)
        self.height = np.zeros(size, np.float32)
        self.road = np.zeros(size, np.uint8)
        self.taken = np.zeros(size, bool)
        self.grain = rng.standard_normal(size, dtype=np.float32)

    def noise(self, cell: float, octaves: int = 3) -> np.ndarray:
        """Smooth noise (H, W), about -1..1, whose coarsest features are ``cell`` pixels wide."""
        total = np.zeros(self.size, np.float32)
        weight = 1.0
        for _ in range(octaves):
            grid = [max(int(np.ceil(side / cell)), 1) + 3 for side in self.size]
            coarse = self.rng.standard_normal(grid, dtype=np.float32)
            scaled = cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_LINEAR)
            top, left = (int(self.rng.integers(0, max(have - need, 0) + 1))
                         for have, need in zip(scaled.shape, self.size))
            total += weight * scaled[top:top + self.size[0], left:left + self.size[1]]
            cell, weight = max(cell / 2, 2.0), weight * 0.5
        return total * 0.5

    def fill(self, outline: np.ndarray) -> np.ndarray:
        """Return the (H, W) bool inside of a polygon (N, 2) of (x, y) in pixels."""
        inside = np.zeros(self.size, np.uint8)
        corners = np.round(outline * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(inside, [corners], 1, shift=SUBPIXEL_BITS)
        return inside.astype(bool)

    def local(self, centre: np.ndarray, along: np.ndarray, reach: float):
        """Coordinates in a rotated frame, for the part of the scene within ``reach`` pixels.

        Returns:
            The slices of that part, and the distances in pixels along and across ``along`` from
            ``centre``; ``None`` where the part is empty.
        """
        left, top = np.floor(centre - reach).astype(int)
        right, bottom = np.ceil(centre + reach).astype(int) + 1
        rows = slice(max(top, 0), min(bottom, self.size[0]))
        columns = slice(max(left, 0), min(right, self.size[1]))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(centre[1])
        x = np.arange(columns.start, columns.stop, dtype=np.float32)[None] - np.float32(centre[0])
        along = along.astype(np.float32)
        return (rows, columns), x * along[0] + y * along[1], y * along[0] - x * along[1]

    def is_free(self, centre: np.ndarray, along: np.ndarray, half: tuple[float, float]) -> bool:
        """Whether a rectangle of half sides ``half`` (along, across; pixels) overlaps nothing and
        has its centre in the scene."""
        if not (0 <= centre[0] < self.size[1] and 0 <= centre[1] < self.size[0]):
            return False
        part = self.local(centre, along, float(np.hypot(*half)))
        where, u, v = part
        return not self.taken[where][(np.abs(u) <= half[0]) & (np.abs(v) <= half[1])].any()

    def paint(self, where, inside: np.ndarray, colour: np.ndarray,
              texture: np.ndarray | float = 0.0) -> None:
        """Set the reflectance of ``inside`` (a mask of the part ``where``) to ``colour``, modulated
        by ``texture``."""
        shaded = np.asarray(colour, np.float32) * (1 + np.asarray(texture, np.float32))[..., None]
        part = self.colour[where]
        np.copyto(part, np.broadcast_to(shaded, part.shape), where=inside[..., None])


def unit(angle: float) -> np.ndarray:
    """The unit vector (x, y) at ``angle`` radians."""
    return np.array([np.cos(angle), np.sin(angle)])


def normal(direction: np.ndarray) -> np.ndarray:
    """``direction`` rotated by 90 degrees."""
    return np.array([-direction[1], direction[0]])
