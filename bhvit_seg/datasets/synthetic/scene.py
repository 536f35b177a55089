"""One scene: ground, streets, objects beside them, and illumination."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from bhvit_seg.datasets.synthetic import objects, roads
from bhvit_seg.datasets.synthetic.canvas import EVERYWHERE, METRES_PER_PIXEL, Canvas, unit
from bhvit_seg.errors import UserError

MIN_SIDE = 32
# Heights are multiples of 1/64 m, so that rounding differences between machines do not show.
HEIGHT_STEPS = 64
FIELDS = np.array([[0.25, 0.30, 0.17], [0.36, 0.37, 0.22], [0.47, 0.42, 0.30], [0.37, 0.30, 0.24],
                   [0.30, 0.34, 0.21], [0.42, 0.40, 0.27]])
LAWNS = np.array([[0.27, 0.31, 0.18], [0.24, 0.28, 0.17], [0.36, 0.35, 0.25], [0.31, 0.33, 0.21],
                  [0.40, 0.36, 0.28]])
DRY = np.array([0.58, 0.50, 0.38], np.float32)


class Scene(NamedTuple):
    """A scene of 0.5 m per pixel."""

    image: np.ndarray  # (H, W, 3) uint8, red, green, blue
    mask: np.ndarray  # (H, W) uint8, 0 background, 1 road (also below trees and cars)
    height: np.ndarray  # (H, W) float32, metres above ground


def generate_scene(seed: int | tuple[int, ...], size: tuple[int, int] = (256, 256)) -> Scene:
    """Generate the scene of a seed, integers from 0; ``size`` is (height, width), from 32."""
    if min(size) < MIN_SIDE:
        raise UserError(f'size={tuple(size)} of a synthetic scene: expected at least '
                        f'{MIN_SIDE}x{MIN_SIDE} pixels')
    rng = np.random.default_rng(seed)
    canvas = Canvas(rng, tuple(size))
    built_up = rng.random()
    _draw_ground(canvas, built_up)
    if rng.random() < 0.5:
        roads.draw_path(canvas)
    # Counts are proportional to the area, so that density does not depend on the size.
    area = size[0] * size[1] / 256**2
    streets = roads.plan_streets(canvas, int(rng.integers(0, 3) + round(3 * built_up)))
    roads.draw_streets(canvas, streets)
    if rng.random() < 0.3 + 0.5 * built_up:
        for _ in range(max(round(area), 1)):
            objects.draw_hall(canvas, streets[rng.integers(len(streets))])
    for street in streets:
        objects.draw_houses(canvas, street, density=0.15 + 0.8 * built_up)
        objects.draw_cars(canvas, street, density=rng.uniform(0.03, 0.3))
    if rng.random() < 0.6:
        objects.draw_street_trees(canvas, streets[rng.integers(len(streets))],
                                  density=rng.uniform(0.2, 0.7))
    objects.draw_trees(canvas, count=round(area * rng.uniform(10, 40)),
                       groves=round(area * rng.uniform(0, 4)))
    height = np.maximum(np.round(canvas.height * HEIGHT_STEPS) / HEIGHT_STEPS, np.float32(0))
    return Scene(_photograph(canvas, height), canvas.road, height)


def _draw_ground(canvas: Canvas, built_up: float) -> None:
    """Paint parcels of one colour each, with furrows in the country, grain and stains."""
    rng = canvas.rng
    # A parcel is 60 m to 110 m wide in the country, a garden's width in town.
    count = max(int(canvas.extent.prod() / (220 - 150 * built_up)**2), 1) + 3
    heading = unit(rng.uniform(0, np.pi))
    best, parcel = np.full(canvas.size, np.inf, np.float32), np.zeros(canvas.size, np.int32)
    for index, seed in enumerate(rng.uniform(0, canvas.extent, (count, 2))):
        # This distance gives parcels straight sides along common directions.
        _, u, v, _ = canvas.box(seed, heading, (1e6, 1e6))
        distance = np.maximum(np.abs(u), np.abs(v))
        parcel[distance < best] = index
        best = np.minimum(best, distance)
    in_town = built_up > 0.45
    kinds = LAWNS if in_town else FIELDS
    colours = kinds[rng.integers(0, len(kinds), count)] * rng.uniform(0.85, 1.15, (count, 1))
    # A furrow is a wave in one of the two directions.
    rates = 2 * np.pi / rng.uniform(2.5, 7, (count, 1)) * np.eye(2)[rng.integers(0, 2, count)]
    strength = rng.uniform(0, 0.10, count) * (not in_town)
    furrows = strength[parcel] * np.sin(u * rates[parcel, 0] + v * rates[parcel, 1])
    texture = furrows + 0.20 * canvas.noise(50, octaves=4) + 0.08 * canvas.grain
    canvas.paint(EVERYWHERE, np.True_, colours[parcel], texture)
    canvas.colour += np.clip(canvas.noise(70) - 0.25, 0, 0.5)[..., None] * (DRY - canvas.colour)


def _photograph(canvas: Canvas, height: np.ndarray) -> np.ndarray:
    """Illuminate the scene, cast shadows, expose, blur and add noise."""
    rng = canvas.rng
    sun, elevation = unit(rng.uniform(0, 2 * np.pi)), np.radians(rng.uniform(32, 58))
    lit = cv2.GaussianBlur(1 - _shadow(height, sun, float(np.tan(elevation))), (3, 3), 0.7)
    slope_x, slope_y = (cv2.Sobel(height, cv2.CV_32F, *order, scale=1 / (8 * METRES_PER_PIXEL))
                        for order in ((1, 0), (0, 1)))
    # Without a limit, walls would give every roof a bright rim.
    slope = np.clip(slope_x * sun[0] + slope_y * sun[1], -1.2, 1.2)
    steep = np.minimum(np.hypot(slope_x, slope_y), 1.2)
    facing = (1 - slope / np.tan(elevation)) / np.sqrt(1 + steep**2)
    light = 0.34 + 0.66 * lit * np.maximum(facing, 0)
    # Shadows are lit only by the blue sky.
    sky = 1 + (1 - lit)[..., None] * np.array([-0.06, 0.0, 0.12], np.float32)
    cast = rng.uniform(1.15, 1.5) * (1 + rng.uniform(-0.05, 0.05, 3))
    haze = rng.uniform(0.02, 0.10)
    picture = canvas.colour * np.float32(light)[..., None] * sky * np.float32(cast * (1 - haze))
    picture = cv2.GaussianBlur(picture + np.float32(haze), (0, 0), rng.uniform(0.5, 0.8))
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(0.012)
    # Display gamma: reflectance is linear, images are not.
    picture = np.power(np.clip(picture, 0, 1), np.float32(1 / 1.25))
    return np.round(picture * 255).astype(np.uint8)


def _shadow(height: np.ndarray, sun: np.ndarray, slope: float) -> np.ndarray:
    """Return (H, W) float32, 1 in shadow; ``sun``: horizontal direction, ``slope``: of the ray."""
    drop = slope * METRES_PER_PIXEL
    reach = int(height.max() / drop) + 1
    padded = np.pad(height, reach)
    highest = np.zeros_like(height)
    for step in range(1, reach + 1):
        left, top = (reach + round(step * float(part)) for part in sun)
        seen = padded[top:top + height.shape[0], left:left + height.shape[1]]
        np.maximum(highest, seen - step * drop, out=highest)
    return (highest > height + 0.3).astype(np.float32)
