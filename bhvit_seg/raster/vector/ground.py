"""Areas and lengths on the ground of what is drawn on a raster.

Where map units are true metres within 1 %, as in UTM, areas and lengths are those of the map, so
that all pixels have one area. Geographic coordinates, and projections that stretch such as Web
Mercator (twice the area at 45° north), are measured on the WGS 84 ellipsoid instead: areas by an
equal-area cylindrical projection, in which meridians and parallels stay straight, so that those of
pixels along them are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

RADIUS = 6378137.0
ECCENTRICITY = 0.0818191908426215
LARGEST_DISTORTION = 0.01


class Ground:
    """Measures what is given in pixels, points (n, 2) of (column, row), of a raster.

    Attributes:
        known: Whether there is a CRS, which says how large things are.
        located: Whether it says where on Earth they are.
        metres_per_pixel: (2, 2), what a step of one column (first column of the matrix) and of one
            row is on the ground in the raster's middle, eastward and northward; without a CRS, in
            map units.

    Args:
        crs: CRS of the raster, or None.
        transform: From pixels to the CRS.
        shape: (height, width) in pixels.
    """

    def __init__(self, crs: CRS | None, transform: Affine, shape: Sequence[int]) -> None:
        self._crs = crs
        self._linear = np.array([[transform.a, transform.b], [transform.d, transform.e]])
        self._origin = np.array([transform.c, transform.f])
        self._unit = crs.units_factor[1] if crs else 1.0
        self.known = bool(crs)
        self.located = False
        self.metres_per_pixel = self._unit * self._linear
        self._flat = True
        if self.known:
            middle = self._metres_per_pixel(np.array([shape[1] / 2, shape[0] / 2]))
            distortion = abs(_area(middle) / _area(self.metres_per_pixel) - 1)
            self.located = bool(np.isfinite(distortion))
            self._flat = not (crs.is_geographic or distortion > LARGEST_DISTORTION)
            if not self._flat:
                self.metres_per_pixel = middle
        self._middle_column = shape[1] / 2

    @property
    def pixel_side(self) -> float:
        """Side of a square as large as a pixel in the raster's middle, see the other units."""
        return float(np.sqrt(_area(self.metres_per_pixel)))

    def pixel_area(self, row: float) -> float:
        """Return the area of a pixel of a row, in the middle column, in square metres."""
        here = self.metres_per_pixel if self._flat else self._metres_per_pixel(
            np.array([self._middle_column, row]))
        return _area(here)

    def ring_areas(self, points: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the areas of rings in square metres; holes, which turn the other way, count less.

        Args:
            points: Corners of all rings, each ring's first one not repeated at its end.
            starts: Index of each ring's first corner, ascending from 0.

        Returns:
            (len(starts),) positive for rings that are clockwise on the screen.
        """
        if self._flat:
            return self.pixel_area(0) * pixel_areas(points, starts)
        longitude, latitude = self._radians(points)
        sine = ECCENTRICITY * np.sin(latitude)
        height = RADIUS / 2 * (1 - ECCENTRICITY**2) / ECCENTRICITY * (
            sine / (1 - sine**2) + np.arctanh(sine))
        (a, b), (c, d) = self._linear
        return np.sign(a * d - b * c) * pixel_areas(
            np.stack([RADIUS * longitude, height], axis=1), starts)

    def lengths(self, points: np.ndarray) -> np.ndarray:
        """Return the length of every segment of a line, (n - 1,), in metres."""
        if self._flat:
            steps = np.diff(points @ self.metres_per_pixel.T, axis=0)
        else:
            longitude, latitude = self._radians(points)
            east, north = _metres_per_radian((latitude[:-1] + latitude[1:]) / 2)
            steps = np.stack([east * np.diff(longitude), north * np.diff(latitude)], axis=1)
        return np.hypot(steps[:, 0], steps[:, 1])

    def _metres_per_pixel(self, point: np.ndarray) -> np.ndarray:
        """Return :attr:`metres_per_pixel` on the ellipsoid, at a point; NaN where not known."""
        longitude, latitude = self._radians(point + np.array(
            [[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]]))
        east, north = _metres_per_radian(latitude.mean())
        return np.array([east * (longitude[1::2] - longitude[::2]),
                         north * (latitude[1::2] - latitude[::2])])

    def _radians(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return longitude and latitude; NaN where they are not known."""
        x, y = (points @ self._linear.T + self._origin).T
        if self._crs.is_geographic:
            return x * self._unit, y * self._unit
        from rasterio._err import CPLE_BaseError
        from rasterio.errors import RasterioError
        from rasterio.warp import transform

        try:
            longitude, latitude = transform(self._crs, 'EPSG:4326', x, y)
        except (CPLE_BaseError, RasterioError):
            return np.full(len(x), np.nan), np.full(len(x), np.nan)
        return np.radians(longitude), np.radians(latitude)


def _area(matrix: np.ndarray) -> float:
    """Return the area of the parallelogram of a matrix's columns."""
    (a, b), (c, d) = matrix
    return float(abs(a * d - b * c))


def pixel_areas(points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the areas of rings by their corners' coordinates, see :meth:`Ground.ring_areas`."""
    if not len(starts):
        return np.empty(0)
    sizes = np.diff(starts, append=len(points))
    # From each ring's own first corner: products of large coordinates would drown small rings.
    x, y = (points - np.repeat(points[starts], sizes, axis=0)).astype(np.float64).T
    following = np.arange(1, len(points) + 1)
    following[np.append(starts[1:], len(points)) - 1] = starts
    return np.add.reduceat(x * y[following] - x[following] * y, starts) / 2


def _metres_per_radian(latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how long a radian is eastward and northward."""
    flattened = 1 - (ECCENTRICITY * np.sin(latitude)) ** 2
    east = RADIUS * np.cos(latitude) / np.sqrt(flattened)
    return east, RADIUS * (1 - ECCENTRICITY**2) / flattened**1.5
