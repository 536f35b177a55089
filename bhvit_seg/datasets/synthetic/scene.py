"""One scene: ground, streets, objects beside them, and illumination."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from bhvit_seg.datasets.synthetic import objects, roads
from bhvit_seg.datasets.synthetic.canvas import METRES_PER_PIXEL, Canvas, unit
from bhvit_seg.errors import UserError

MIN_SIDE = 32
# Heights are multiples of 1/64 m, so that rounding differences between machines do not show.
HEIGHT_STEPS = 64
FIELDS = np.array([[0.25, 0.30, 0.17], [0.36, 0.37, 0.22], [0.47, 0.42, 0.30], [0.37, 0.30, 0.24],
                   [0.30, 0.34, 0.21], [0.42, 0.40, 0.27]])
LAWNS = np.array([[0.27, 0.31, 0.18], [0.24, 0.28, 0.17], [0.36, 0.35, 0.25], [0.31, 0.33, 0.21],
                  [0.40, 0.36, 0.28]])


class Scene(NamedTuple):
    """A scene of 0.5 m a pixel.

    Attributes:
        image: (H, W, 3) uint8, red, green, blue.
        mask: (H, W) uint8, 0 background, 1 road (also below trees and cars).
        height: (H, W) float32, metres above ground.
    """

    image: np.ndarray
    mask: np.ndarray
    height: np.ndarray


def generate_scene(seed: int | tuple[int, ...], size: tuple[int, int] = (256, 256)) -> Scene:
    """Generate the scene of a seed.

    Args:
        seed: A number from 0, or several of them.
        size: Height and width in pixels, at least 32 each.

    Raises:
        UserError: ``size`` is too small.
    """
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
            objects.draw_hall(canvas, streets[int(rng.integers(len(streets)))])
    for street in streets:
        objects.draw_houses(canvas, street, density=0.15 + 0.8 * built_up)
        objects.draw_cars(canvas, street, density=rng.uniform(0.03, 0.3))
    if rng.random() < 0.6:
        objects.draw_street_trees(canvas, streets[int(rng.integers(len(streets)))],
                                  density=rng.uniform(0.2, 0.7))
    objects.draw_trees(canvas, count=round(area * rng.uniform(10, 40)),
                       groves=round(area * rng.uniform(0, 4)))
    height = (np.round(canvas.height * HEIGHT_STEPS) / HEIGHT_STEPS).astype(np.float32)
    np.maximum(height, 0, out=height)
    return Scene(_photograph(canvas, height), canvas.road, height)


def _draw_ground(canvas: Canvas, built_up: float) -> None:
    """Paint parcels of one colour each, with furrows in the country, grain and stains."""
    rng = canvas.rng
    rows, columns = canvas.size
    # A parcel is 60 m to 110 m wide in the country, a garden's width in town.
    spacing = 220 - 150 * built_up
    count = max(int(rows * columns / spacing**2), 1) + 3
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    heading = unit(rng.uniform(0, np.pi)).astype(np.float32)
    u, v = x * heading[0] + y * heading[1], y * heading[0] - x * heading[1]
    seeds = rng.uniform([0, 0], [columns, rows], (count, 2)).astype(np.float32)
    best = np.full(canvas.size, np.inf, np.float32)
    parcel = np.zeros(canvas.size, np.int32)
    for index, seed in enumerate(seeds):
        # The city-block distance gives parcels straight sides along common directions.
        du = np.abs(u - (seed[0] * heading[0] + seed[1] * heading[1]))
        dv = np.abs(v - (seed[1] * heading[0] - seed[0] * heading[1]))
        distance = np.maximum(du, dv)
        closer = distance < best
        best[closer] = distance[closer]
        parcel[closer] = index
    kinds = LAWNS if built_up > 0.45 else FIELDS
    colours = kinds[rng.integers(0, len(kinds), count)] * rng.uniform(0.85, 1.15, (count, 1))
    strength = rng.uniform(0, 0.10, count) * (built_up <= 0.45)
    period = rng.uniform(2.5, 7, count)
    turned = rng.random(count) < 0.5
    across = np.where(turned[parcel], u, v)
    furrows = strength[parcel] * np.sin(across * (2 * np.pi / period)[parcel])
    stains = canvas.noise(50, octaves=4)
    texture = furrows + 0.20 * stains + 0.08 * canvas.grain
    canvas.paint((slice(None), slice(None)), np.ones(canvas.size, bool),
                 colours[parcel], texture)
    dry = np.clip(canvas.noise(70) - 0.25, 0, 0.5)[..., None]
    canvas.colour += dry * (np.array([0.58, 0.50, 0.38], np.float32) - canvas.colour)


def _photograph(canvas: Canvas, height: np.ndarray) -> np.ndarray:
    """Illuminate the scene, cast shadows, expose, blur and add noise."""
    rng = canvas.rng
    sun = unit(rng.uniform(0, 2 * np.pi))
    elevation = np.radians(rng.uniform(32, 58))
    lit = 1 - _shadow(height, sun, float(np.tan(elevation)))
    lit = cv2.GaussianBlur(lit, (3, 3), 0.7)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / (8 * METRES_PER_PIXEL))
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / (8 * METRES_PER_PIXEL))
    # Without a limit, walls would give every roof a bright rim.
    slope = np.clip(slope_x * sun[0] + slope_y * sun[1], -1.2, 1.2)
    steep = np.minimum(np.hypot(slope_x, slope_y), 1.2)
    facing = (np.sin(elevation) - slope * np.cos(elevation)) / np.sqrt(1 + steep**2)
    diffuse = np.maximum(facing, 0) / np.sin(elevation)
    light = (0.34 + 0.66 * lit * diffuse)[..., None]
    # Shadows are lit only by the blue sky.
    sky = 1 + (1 - lit)[..., None] * np.array([-0.06, 0.0, 0.12], np.float32)
    picture = canvas.colour * light.astype(np.float32) * sky
    cast = np.float32(rng.uniform(1.15, 1.5)) * (1 + rng.uniform(-0.05, 0.05, 3)).astype(np.float32)
    haze = np.float32(rng.uniform(0.02, 0.10))
    picture = picture * cast * (1 - haze) + haze
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 0.8))
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(0.012)
    # Display gamma: reflectance is linear, images are not.
    picture = np.power(np.clip(picture, 0, 1), np.float32(1 / 1.25))
    return np.round(picture * 255).astype(np.uint8)


def _shadow(height: np.ndarray, sun: np.ndarray, slope: float) -> np.ndarray:
    """Return (H, W) float32, 1 where an object between a pixel and the sun is higher than the
    ray. ``sun`` is the horizontal direction to the sun, ``slope`` the rise of the ray."""
    drop = slope * METRES_PER_PIXEL
    reach = int(height.max() / drop) + 1
    padded = cv2.copyMakeBorder(height, reach, reach, reach, reach, cv2.BORDER_CONSTANT)
    highest = np.zeros_like(height)
    for step in range(1, reach + 1):
        dx, dy = (int(round(step * float(part))) for part in sun)
        seen = padded[reach + dy:reach + dy + height.shape[0],
                      reach + dx:reach + dx + height.shape[1]]
        np.maximum(highest, seen - step * drop, out=highest)
    return (highest > height + 0.3).astype(np.float32)
