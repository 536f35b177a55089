"""The layers of a scene, and oriented shapes in them. Places and sizes are in pixels, (x, y)."""

from __future__ import annotations

import cv2
import numpy as np

METRES_PER_PIXEL = 0.5
EVERYWHERE = np.s_[:, :]


class Canvas:
    """Layers (H, W) of one scene, painted from the ground upwards."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng = rng
        self.size = size
        self.extent = np.array([size[1], size[0]], float)
        self.y, self.x = np.mgrid[:size[0], :size[1]].astype(np.float32)
        self.colour = np.zeros((*size, 3), np.float32)  # reflectance, red, green, blue, 0..1
        self.height = np.zeros(size, np.float32)  # metres above ground
        self.road = np.zeros(size, np.uint8)  # 1 where a road is, also below other objects
        self.taken = np.zeros(size, bool)  # where no further object may be placed
        self.grain = rng.standard_normal(size, dtype=np.float32)

    def noise(self, cell: float, octaves: int = 3) -> np.ndarray:
        """Smooth noise (H, W), about -1..1, whose coarsest features are ``cell`` pixels wide."""
        total = np.zeros(self.size, np.float32)
        for octave in range(octaves):
            scale = max(cell / 2**octave, 2)
            coarse = self.rng.standard_normal([int(side / scale) + 4 for side in self.size],
                                              dtype=np.float32)
            fine = cv2.resize(coarse, None, fx=scale, fy=scale)
            total += fine[:self.size[0], :self.size[1]] / 2**(octave + 1)
        return total

    def box(self, centre: np.ndarray, along: np.ndarray, half: tuple[float, float]) -> tuple:
        """A rectangle of half sides ``half``, along and across the direction ``along``.

        Returns:
            The slices of its part of the scene, which may be empty; there, the distances along and
            across from its centre, and whether a pixel is inside.
        """
        centre, along, reach = np.float32(centre), np.float32(along), float(np.hypot(*half)) + 1
        part = tuple(slice(max(int(at - reach), 0), max(int(at + reach) + 2, 0))
                     for at in (centre[1], centre[0]))
        x, y = self.x[part] - centre[0], self.y[part] - centre[1]
        u, v = x * along[0] + y * along[1], y * along[0] - x * along[1]
        return part, u, v, (np.abs(u) < half[0]) & (np.abs(v) < half[1])

    def is_free(self, centre: np.ndarray, along: np.ndarray, half: tuple[float, float]) -> bool:
        """Whether a rectangle overlaps nothing and has its centre in the scene."""
        part, *_, inside = self.box(centre, along, half)
        return bool((centre >= 0).all() and (centre < self.extent).all()
                    and not self.taken[part][inside].any())

    def paint(self, part: tuple, inside: np.ndarray, colour, texture: np.ndarray | float = 0.0,
              height: np.ndarray | float | None = None) -> None:
        """Set the colour of ``inside``, modulated by ``texture``, and perhaps its height."""
        shaded = np.float32(colour) * (1 + np.asarray(texture, np.float32)[..., None])
        np.copyto(self.colour[part], shaded, where=inside[..., None])
        if height is not None:
            np.copyto(self.height[part], height, 'same_kind', inside)


def pixels(metres: float) -> float:
    return float(metres) / METRES_PER_PIXEL


def unit(angle: float) -> np.ndarray:
    """The unit vector (x, y) at ``angle`` radians."""
    return np.array([np.cos(angle), np.sin(angle)])


def normal(direction: np.ndarray) -> np.ndarray:
    return np.array([-direction[1], direction[0]])
