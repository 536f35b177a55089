"""Streets of a scene: their lines, their surface, and what is painted on it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bhvit_seg.datasets.synthetic.canvas import METRES_PER_PIXEL, Canvas, normal, unit

POINTS_PER_STREET = 48


@dataclass
class Street:
    """A line of points (N, 2), (x, y) in pixels, and the width of the street there in pixels."""

    points: np.ndarray
    width: np.ndarray

    @property
    def tangents(self) -> np.ndarray:
        steps = np.gradient(self.points, axis=0)
        return steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-6)

    def outline(self, factor: float = 1.0, extra: float = 0.0) -> np.ndarray:
        """The polygon of the street, its width times ``factor`` plus ``extra`` pixels a side."""
        tangents = self.tangents
        across = np.stack([-tangents[:, 1], tangents[:, 0]], axis=1)
        half = (self.width * factor / 2 + extra)[:, None]
        return np.concatenate([self.points + across * half, (self.points - across * half)[::-1]])

    def walk(self, step: float, start: float = 0.0):
        """Yield (point, tangent, width) every ``step`` pixels along the street."""
        lengths = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        at = np.concatenate([[0.0], np.cumsum(lengths)])
        tangents = self.tangents
        for distance in np.arange(start, at[-1], step):
            point = np.array([np.interp(distance, at, self.points[:, i]) for i in (0, 1)])
            index = int(np.searchsorted(at, distance)) - 1
            yield point, tangents[max(index, 0)], float(np.interp(distance, at, self.width))


def plan_streets(canvas: Canvas, side_streets: int) -> list[Street]:
    """Lay one street across the scene and others that branch off it."""
    rng = canvas.rng
    extent = np.array([canvas.size[1], canvas.size[0]], float)
    heading = unit(rng.uniform(0, np.pi))
    middle = extent * rng.uniform(0.3, 0.7, 2)
    reach = float(np.hypot(*extent)) * 0.75
    main = _street(rng, middle - heading * reach, middle + heading * reach,
                   rng.uniform(7, 11), bend=rng.uniform(-0.25, 0.25))
    streets = [main]
    places = np.linspace(0.3, 0.7, max(side_streets, 1)) + rng.uniform(-0.05, 0.05,
                                                                       max(side_streets, 1))
    for place in places[:side_streets]:
        index = int(place * (POINTS_PER_STREET - 1))
        direction = normal(main.tangents[index]) * rng.choice([-1, 1])
        direction = direction + main.tangents[index] * rng.uniform(-0.35, 0.35)
        start = main.points[index]
        streets.append(_street(rng, start, start + direction * reach, rng.uniform(5, 7.5),
                               bend=rng.uniform(-0.15, 0.15)))
        if rng.random() < 0.5:
            streets.append(_street(rng, start, start - direction * reach, rng.uniform(5, 7.5),
                                   bend=rng.uniform(-0.15, 0.15)))
    return streets


def draw_streets(canvas: Canvas, streets: list[Street]) -> None:
    """Lay verges, asphalt, worn tracks, kerbs and markings; fills the road label."""
    rng = canvas.rng
    everything = (slice(None), slice(None))
    verge = np.any([canvas.fill(s.outline(extra=rng.uniform(1.5, 4))) for s in streets], axis=0)
    verge_colour = [[0.55, 0.52, 0.46], [0.40, 0.42, 0.28], [0.62, 0.60, 0.57]][rng.integers(3)]
    canvas.paint(everything, verge, verge_colour, canvas.grain * 0.05)
    surface = np.any([canvas.fill(s.outline()) for s in streets], axis=0).astype(np.uint8)
    # Closing rounds the corners of junctions as kerbs do.
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    padded = cv2.copyMakeBorder(surface, 9, 9, 9, 9, cv2.BORDER_REPLICATE)
    surface = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[9:-9, 9:-9].astype(bool)
    tone = rng.uniform(0.22, 0.48)
    tint = np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.03, 0.05, 3)
    worn = canvas.noise(40) * 0.07 + canvas.grain * 0.035
    canvas.paint(everything, surface, tone * tint, worn)
    canvas.road[surface] = 1
    canvas.taken |= cv2.dilate(surface.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    for street in streets:
        _draw_tracks(canvas, street, surface, tone)
    _draw_markings(canvas, streets[0], streets[1:])


def draw_path(canvas: Canvas) -> None:
    """Draw a narrow unpaved path, which is no road."""
    rng = canvas.rng
    extent = np.array([canvas.size[1], canvas.size[0]], float)
    heading = unit(rng.uniform(0, np.pi))
    middle = extent * rng.uniform(0.15, 0.85, 2)
    reach = float(np.hypot(*extent))
    path = _street(rng, middle - heading * reach, middle + heading * reach, rng.uniform(1.5, 3),
                   bend=rng.uniform(-0.3, 0.3))
    inside = canvas.fill(path.outline())
    colour = np.array([0.62, 0.54, 0.42]) * rng.uniform(0.8, 1.1)
    canvas.paint((slice(None), slice(None)), inside, colour, canvas.grain * 0.08)


def _street(rng: np.random.Generator, start, end, metres: float, bend: float) -> Street:
    """A cubic Bezier line that leaves the straight one by up to ``bend`` of its length."""
    across = normal(end - start)
    first = start + (end - start) / 3 + across * bend
    second = start + (end - start) * 2 / 3 + across * bend * rng.uniform(-1, 1)
    t = np.linspace(0, 1, POINTS_PER_STREET)[:, None]
    points = ((1 - t)**3 * start + 3 * (1 - t)**2 * t * first + 3 * (1 - t) * t**2 * second
              + t**3 * end)
    wave = np.sin(t[:, 0] * rng.uniform(4, 12) + rng.uniform(0, 6.28))
    return Street(points, metres / METRES_PER_PIXEL * (1 + 0.08 * wave))


def _draw_tracks(canvas: Canvas, street: Street, surface: np.ndarray, tone: float) -> None:
    """Wheels polish two strips a lane: lighter on dark asphalt, darker on light."""
    tracks = np.zeros(canvas.size, np.float32)
    for offset in (-0.32, -0.14, 0.14, 0.32):
        shifted = Street(street.points + _across(street) * (street.width * offset)[:, None],
                         street.width)
        tracks += canvas.fill(shifted.outline(factor=0.07))
    tracks = cv2.GaussianBlur(tracks, (5, 5), 1.2) * surface
    canvas.colour *= (1 + np.sign(0.36 - tone) * 0.12 * np.minimum(tracks, 1))[..., None]


def _draw_markings(canvas: Canvas, main: Street, others: list[Street]) -> None:
    rng = canvas.rng
    junctions = np.any([canvas.fill(s.outline(extra=2)) for s in others], axis=0) if others else (
        np.zeros(canvas.size, bool))
    white = rng.uniform(0.72, 0.9)
    painted = np.zeros(canvas.size, bool)
    dash = rng.uniform(4, 8)
    if rng.random() < 0.8:
        for point, tangent, _ in main.walk(dash * 2.2):
            part = canvas.local(point, tangent, dash)
            if part is not None:
                where, u, v = part
                painted[where] |= (np.abs(u) < dash / 2) & (np.abs(v) < 0.6)
    if rng.random() < 0.5:
        inner, outer = canvas.fill(main.outline(factor=0.84)), canvas.fill(
            main.outline(factor=0.92))
        painted |= outer & ~inner
    painted &= ~junctions & canvas.road.astype(bool)
    canvas.paint((slice(None), slice(None)), painted, [white] * 3, canvas.grain * 0.1)


def _across(street: Street) -> np.ndarray:
    tangents = street.tangents
    return np.stack([-tangents[:, 1], tangents[:, 0]], axis=1)
