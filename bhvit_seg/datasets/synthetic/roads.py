"""Streets of a scene: their lines, their surface, and what is painted on it."""

from collections.abc import Iterator

import cv2
import numpy as np

from bhvit_seg.datasets.synthetic.canvas import EVERYWHERE, Canvas, normal, pixels, unit

VERGES = ((0.55, 0.52, 0.46), (0.40, 0.42, 0.28), (0.62, 0.60, 0.57))
WHEELS = (0.14, 0.32)  # how far from the centre line they run, in widths of the street


class Street:
    """A cubic curve along a straight line of ``length`` pixels, within about ``bend`` of that."""

    def __init__(self, rng: np.random.Generator, start: np.ndarray, heading: np.ndarray,
                 length: float, metres: float, bend: float) -> None:
        self.start, self.heading, self.length = start, heading, length
        first, second = 3 * bend, 3 * bend * rng.uniform(-1, 1)
        self._curve = np.float32([first - second, second - 2 * first, first, 0])
        self._wave = pixels(metres), rng.uniform(4, 12), rng.uniform(0, 6.28)

    def _along(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance from the straight line, its slope and the width, ``u`` pixels along it."""
        t = u / np.float32(self.length)
        width, rate, phase = np.float32(self._wave)
        return (np.polyval(self._curve, t) * np.float32(self.length),
                np.polyval(np.polyder(self._curve), t),
                width * (1 + np.float32(0.08) * np.sin(t * rate + phase)))

    def at(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points (N, 2), tangents (N, 2) and widths (N,) at ``u`` pixels along."""
        across, slope, width = self._along(u)
        sideways = normal(self.heading)
        tangents = self.heading + sideways * slope[:, None]
        return (self.start + self.heading * u[:, None] + sideways * across[:, None],
                tangents / np.linalg.norm(tangents, axis=1, keepdims=True), width)

    def places(self, rng: np.random.Generator, step: float) -> Iterator[tuple]:
        """Every ``step`` pixels along each side: point, tangent, normal to that side and width."""
        for side in (-1, 1):
            for point, tangent, width in zip(*self.at(np.arange(rng.uniform(0, step), self.length,
                                                                step))):
                yield point, tangent, side * normal(tangent), width

    def field(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each pixel (H, W): ``u``, the distance from the centre line, and the width there."""
        _, u, v, _ = canvas.box(self.start, self.heading, (1e6, 1e6))
        across, slope, width = self._along(u)
        distance = np.abs(v - across) / np.sqrt(1 + slope**2)
        distance[(u < 0) | (u > self.length)] = np.inf
        return u, distance, width


def plan_streets(canvas: Canvas, side_streets: int) -> list[Street]:
    """Lay one street across the scene and others that branch off it."""
    rng = canvas.rng
    reach = float(np.hypot(*canvas.extent)) * 0.75
    heading = unit(rng.uniform(0, np.pi))
    start = canvas.extent * rng.uniform(0.3, 0.7, 2) - heading * reach
    streets = [Street(rng, start, heading, 2 * reach, rng.uniform(7, 11), rng.uniform(-0.25, 0.25))]
    for place in np.linspace(0.3, 0.7, max(side_streets, 1))[:side_streets]:
        u = (place + rng.uniform(-0.05, 0.05)) * 2 * reach
        (point,), (tangent,), _ = streets[0].at(np.array([u]))
        heading = normal(tangent) + tangent * rng.uniform(-0.35, 0.35)
        heading *= rng.choice([-1, 1]) / np.hypot(*heading)
        for side in (1, -1)[:int(rng.integers(1, 3))]:
            streets.append(Street(rng, point, side * heading, reach, rng.uniform(5, 7.5),
                                       rng.uniform(-0.15, 0.15)))
    return streets


def draw_streets(canvas: Canvas, streets: list[Street]) -> None:
    """Lay verges, asphalt, worn tracks and markings; fills the road label."""
    rng = canvas.rng
    verge, surface, junctions = np.zeros((3, *canvas.size), bool)
    beside_track = np.full(canvas.size, np.inf, np.float32)
    for street in reversed(streets):
        u, distance, width = street.field(canvas)
        verge |= distance < width / 2 + rng.uniform(1.5, 4)
        surface |= distance < width / 2
        for wheel in WHEELS:
            beside_track = np.minimum(beside_track, np.abs(distance / width - wheel))
        if street is not streets[0]:
            junctions |= distance < width / 2 + 2
    # Closing rounds the corners of junctions as kerbs do.
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    padded = cv2.copyMakeBorder(surface.astype(np.uint8), 9, 9, 9, 9, cv2.BORDER_REPLICATE)
    canvas.road = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[9:-9, 9:-9].copy()
    surface = canvas.road.astype(bool)
    canvas.taken |= cv2.dilate(canvas.road, np.ones((5, 5), np.uint8)).astype(bool)
    tone = rng.uniform(0.22, 0.48)
    # Wheels polish dark asphalt lighter, and light asphalt darker.
    polish = 0.12 * np.sign(0.36 - tone) * np.exp(-(beside_track / 0.05)**2)
    worn = canvas.noise(40) * 0.07 + canvas.grain * 0.035 + polish
    canvas.paint(EVERYWHERE, verge, VERGES[rng.integers(3)], canvas.grain * 0.05)
    canvas.paint(EVERYWHERE, surface, tone * (1 + rng.uniform(-0.03, 0.05, 3)), worn)
    marked = np.zeros(canvas.size, bool)  # on the main street, whose field is the last
    if rng.random() < 0.8:
        dash = rng.uniform(4, 8)
        marked |= (distance < 0.6) & (u % (2.2 * dash) < dash)
    if rng.random() < 0.5:
        marked |= np.abs(distance / width - 0.44) < 0.02
    canvas.paint(EVERYWHERE, marked & surface & ~junctions, rng.uniform(0.72, 0.9),
                 canvas.grain * 0.1)


def draw_path(canvas: Canvas) -> None:
    """Draw a narrow unpaved path, which does not count as a road."""
    rng = canvas.rng
    heading, reach = unit(rng.uniform(0, np.pi)), float(np.hypot(*canvas.extent))
    start = canvas.extent * rng.uniform(0.15, 0.85, 2) - heading * reach
    path = Street(rng, start, heading, 2 * reach, rng.uniform(1.5, 3), rng.uniform(-0.3, 0.3))
    _, distance, width = path.field(canvas)
    canvas.paint(EVERYWHERE, distance < width / 2,
                 np.array([0.62, 0.54, 0.42]) * rng.uniform(0.8, 1.1), canvas.grain * 0.08)
