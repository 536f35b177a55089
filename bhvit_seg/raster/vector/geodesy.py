"""Areas and lengths, on the ellipsoid, of features given in pixels of a raster.

Where map units are true metres within 1 % all over a raster, as in UTM, the map is measured, so
that all pixels have the same area. Otherwise, as for geographic coordinates and Web Mercator (twice
the area at 45° north), the ellipsoid of the raster's CRS is, of the Earth or another body. Areas of
pixels come from their sides in geocentric coordinates, so that poles and the antimeridian need no
special case.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bhvit_seg.errors import load_package

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

LARGEST_DISTORTION = 0.01
# Areas are computed at this many rows and columns and interpolated between them, unless the raster
# reaches beyond the Earth, as those of whole hemispheres do: then for each pixel.
NODES = 65
# The Earth's radius in metres, and the relative deviation that ellipsoids of the Earth may have.
EARTH, EARTH_TOLERANCE = 6378137.0, 0.01
PIECE = 16  # length in pixels of the pieces of lines that are measured as geodesics


class Geodesy:
    """Measures features of a raster, given by points (n, 2) of (column, row); needs pyproj.

    ``crs`` may be None; ``shape`` is (height, width) in pixels.
    """

    def __init__(self, crs: CRS | None, transform: Affine, shape: Sequence[int]) -> None:
        self._linear = np.array([[transform.a, transform.b], [transform.d, transform.e]])
        self._origin = np.array([transform.c, transform.f])
        self.known = bool(crs) and not transform.is_identity  # metres
        # Whether the CRS is one of the Earth, and whether a pole lies inside the raster, so that
        # polygons around it cannot be expressed in longitude and latitude.
        self.located = self.has_pole = False
        # Width and height in metres of the middle pixel on the ellipsoid, if the CRS has one.
        self.sides: tuple[float, float] | None = None
        # (2, 2), as columns the vectors of one column and one row in the raster's middle, in metres
        # (map units without a CRS), on the axes of the map or any perpendicular ones.
        self.metres_per_pixel = self._linear * (crs.units_factor[1] if self.known else 1.0)
        self._geod = self._nodes = None
        self._by_row = False
        if self.known:
            self._set_ellipsoid(crs, shape)

    def _set_ellipsoid(self, crs: CRS, shape: Sequence[int]) -> None:
        pyproj = load_package('pyproj')
        system = pyproj.CRS.from_wkt(crs.to_wkt())
        geod = system.get_geod()
        if geod is None:
            return
        self._to_degrees = pyproj.Transformer.from_crs(system, system.geodetic_crs, always_xy=True)
        self._unit = np.degrees(system.geodetic_crs.axis_info[0].unit_conversion_factor)
        self._ellipsoid = f'+a={geod.a} +b={geod.b}'
        rows, columns = (np.linspace(0, side, NODES) for side in shape)
        nodes = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        steps = self._steps(nodes)
        finite = np.isfinite(steps).all(axis=(1, 2))
        if not finite.any():
            return
        self.located = abs(geod.a / EARTH - 1) < EARTH_TOLERANCE
        from_middle = np.abs(nodes - (shape[1] / 2, shape[0] / 2)).sum(axis=1)
        middle = steps[np.where(finite, from_middle, np.inf).argmin()]
        self.sides = tuple(np.linalg.norm(middle, axis=0).tolist())
        areas = _spanned(steps)
        is_plain = crs.is_geographic and not system.is_derived
        self.has_pole = not is_plain and self._find_pole(shape)
        if not crs.is_geographic:
            # An equal-area projection may still have wrong lengths.
            ratios = np.append(areas[finite] / self.pixel_area, np.linalg.norm(
                steps[finite], axis=1) / np.linalg.norm(self.metres_per_pixel, axis=0))
            if np.abs(ratios - 1).max() <= LARGEST_DISTORTION:
                return
        self._geod = geod
        # The same vectors in the plane that they span.
        self.metres_per_pixel = np.linalg.qr(middle)[1]
        self._by_row = bool(is_plain and not self._linear[0, 1] and not self._linear[1, 0])
        if finite.all():
            self._nodes = rows, columns, areas.reshape(NODES, NODES)

    @property
    def pixel_area(self) -> float:
        """Area of the pixel in the raster's middle, in square metres (or map units)."""
        (a, b), (c, d) = self.metres_per_pixel
        return float(abs(a * d - b * c))

    @property
    def pixel_side(self) -> float:
        """Side of a square of that area."""
        return float(np.sqrt(self.pixel_area))

    def pixel_areas(self, rows: range, width: int) -> np.ndarray:
        """Return the areas of the pixels of rows in square metres (or map units): (1, 1) where all
        are equal, (rows, 1) where those of a row are, else (rows, width)."""
        y, x = np.arange(rows.start, rows.stop) + 0.5, np.arange(width) + 0.5
        if self._geod is None:
            return np.array([[self.pixel_area]])
        if self._by_row:
            return self._row_areas(y)[:, None]
        if self._nodes is not None:
            return self._spline(y, x)
        return np.stack([self.areas_at(np.stack(np.broadcast_arrays(x, row), axis=1)) for row in y])

    def areas_at(self, points: np.ndarray) -> np.ndarray:
        """Return the areas of pixels around points in square metres (or map units)."""
        if self._geod is None:
            return np.full(len(points), self.pixel_area)
        if self._by_row:
            return self._row_areas(points[:, 1])
        if self._nodes is not None:
            return self._spline.ev(points[:, 1], points[:, 0])
        return _spanned(self._steps(points))

    def length(self, points: np.ndarray) -> float:
        if self._geod is None:
            return float(np.hypot(*np.diff(points @ self.metres_per_pixel.T, axis=0).T).sum())
        import shapely

        line = shapely.segmentize(shapely.LineString(points), PIECE)
        return self._geod.line_length(*self._degrees(shapely.get_coordinates(line)))

    def _find_pole(self, shape: Sequence[int]) -> bool:
        places = np.stack(self._to_degrees.transform(
            [0, 0], [90 / self._unit, -90 / self._unit], direction='INVERSE'), axis=1)
        places = places[np.isfinite(places).all(axis=1)]
        points = np.linalg.solve(self._linear, (places - self._origin).T).T
        return bool(((points > 0) & (points < shape[::-1])).all(axis=1).any())

    def _row_areas(self, rows: np.ndarray) -> np.ndarray:
        """Return the exact areas of pixels between meridians and parallels, by row."""
        import pyproj

        edges = np.stack([rows - 0.5, rows + 0.5]) * self._linear[1, 1] + self._origin[1]
        latitudes = np.clip(edges * self._unit, -90, 90)
        # In an equal-area cylindrical projection they are rectangles.
        project = pyproj.Transformer.from_pipeline(f'+proj=cea {self._ellipsoid}')
        _, heights = project.transform(np.zeros_like(latitudes), latitudes)
        width = self._geod.a * abs(np.radians(self._linear[0, 0] * self._unit))
        return width * np.abs(heights[1] - heights[0])

    @cached_property
    def _spline(self) -> Any:
        from scipy.interpolate import RectBivariateSpline

        return RectBivariateSpline(*self._nodes)

    def _degrees(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return longitudes and latitudes in degrees; not finite where undefined."""
        x, y = np.moveaxis(points @ self._linear.T + self._origin, -1, 0)
        longitudes, latitudes = self._to_degrees.transform(x, y)
        return longitudes * self._unit, latitudes * self._unit

    def _steps(self, points: np.ndarray) -> np.ndarray:
        """Return the geocentric vectors of one column and one row at points, (n, 3, 2), in m."""
        import pyproj

        to_space = pyproj.Transformer.from_pipeline(f'+proj=cart {self._ellipsoid}')
        around = points[:, None] + np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
        longitudes, latitudes = self._degrees(around)
        places = np.stack(to_space.transform(longitudes, latitudes, np.zeros_like(latitudes)))
        with np.errstate(invalid='ignore'):
            steps = places[..., 1::2] - places[..., ::2]
        return np.moveaxis(steps, 0, 1)


def _spanned(steps: np.ndarray) -> np.ndarray:
    """Return the areas of pixels by their steps (n, 3, 2); 0 where there are none."""
    with np.errstate(invalid='ignore'):
        areas = np.linalg.norm(np.cross(steps[..., 0], steps[..., 1]), axis=1)
    return np.where(np.isfinite(areas), areas, 0)
