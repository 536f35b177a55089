"""Objects on the ground: houses, halls, car parks, trees and cars."""

import numpy as np

from bhvit_seg.datasets.synthetic.canvas import METRES_PER_PIXEL, Canvas, normal, pixels, unit
from bhvit_seg.datasets.synthetic.roads import Street

ROOFS = np.array([[0.43, 0.25, 0.20], [0.48, 0.32, 0.26], [0.36, 0.23, 0.20], [0.38, 0.36, 0.35],
                  [0.30, 0.29, 0.29], [0.45, 0.38, 0.32], [0.52, 0.50, 0.48], [0.34, 0.33, 0.34]])
CARS = np.array([[0.85, 0.85, 0.86], [0.80, 0.80, 0.80], [0.12, 0.12, 0.13], [0.35, 0.36, 0.38],
                 [0.50, 0.12, 0.10], [0.15, 0.22, 0.42], [0.60, 0.61, 0.63]])
LEAF = np.array([0.17, 0.255, 0.115])


def draw_houses(canvas: Canvas, street: Street, density: float) -> None:
    """Place houses with gabled or hipped roofs along both sides of a street, some with a drive."""
    rng = canvas.rng
    for point, tangent, outward, width in street.places(rng, pixels(rng.uniform(15, 22))):
        half = pixels(rng.uniform(4.5, 7)), pixels(rng.uniform(3.5, 5))
        setback = width / 2 + pixels(rng.uniform(4, 9)) + half[1]
        centre = point + outward * setback
        angle = rng.normal(0, 0.05) + (rng.random() < 0.35) * np.pi / 2
        along = tangent * np.cos(angle) + normal(tangent) * np.sin(angle)
        if rng.random() > density or not canvas.is_free(centre, along, (half[0] + 2, half[1] + 2)):
            continue
        if rng.random() < 0.6:  # a drive
            drive = point + tangent * half[0] * 0.6 + outward * setback / 2
            part, *_, inside = canvas.box(drive, outward, (setback / 2, pixels(1.4)))
            inside &= canvas.road[part] == 0
            canvas.paint(part, inside, rng.uniform(0.4, 0.65), 0.05 * canvas.grain[part])
        _draw_pitched_roof(canvas, centre, along, half)


def _draw_pitched_roof(canvas: Canvas, centre, along, half) -> None:
    rng = canvas.rng
    part, u, v, inside = canvas.box(centre, along, half)
    eaves, rise = rng.uniform(3, 5.5), rng.uniform(1.5, 3)
    slope = 1 - np.abs(v) / half[1]
    if rng.random() < 0.35:
        slope = np.minimum(slope, (half[0] - np.abs(u)) / half[1])
    rows_of_tiles = 0.05 * np.sin(v * 2.4) + 0.05 * canvas.grain[part]
    canvas.paint(part, inside, ROOFS[rng.integers(len(ROOFS))] * rng.uniform(0.85, 1.2),
                 rows_of_tiles, eaves + rise * slope)
    canvas.taken[part] |= inside
    if rng.random() < 0.5:  # a chimney
        ridge = centre + along * half[0] * rng.uniform(-0.6, 0.6)
        part, *_, inside = canvas.box(ridge, along, (1.1, 1.1))
        canvas.paint(part, inside, [0.45, 0.33, 0.28], height=eaves + rise + 1)


def draw_hall(canvas: Canvas, street: Street) -> None:
    """Place a large flat roof, often of the colour of asphalt, and a car park beside a street."""
    rng = canvas.rng
    for _ in range(12):
        (point,), (tangent,), (width,) = street.at(street.length * rng.uniform(0.15, 0.85, 1))
        outward = normal(tangent) * rng.choice([-1, 1])
        half = pixels(rng.uniform(10, 18)), pixels(rng.uniform(7, 12))
        yard = pixels(rng.uniform(7, 9))
        park = point + outward * (width / 2 + pixels(3) + yard)
        hall = park + outward * (yard + half[1] + 3)
        if canvas.is_free(hall, tangent, half) and (
                canvas.is_free(park, tangent, (half[0], yard - 2))):
            _draw_car_park(canvas, park, tangent, (half[0], yard))
            _draw_flat_roof(canvas, hall, tangent, half)
            return


def _draw_flat_roof(canvas: Canvas, centre, along, half) -> None:
    rng = canvas.rng
    part, u, v, inside = canvas.box(centre, along, half)
    rim = inside & ((np.abs(u) > half[0] - 1.5) | (np.abs(v) > half[1] - 1.5))
    tone = rng.uniform(0.25, 0.5) if rng.random() < 0.7 else rng.uniform(0.6, 0.8)
    height = rng.uniform(5, 10)
    canvas.paint(part, inside, tone, 0.04 * canvas.grain[part], height)
    canvas.paint(part, rim, tone * 1.25)
    canvas.taken[part] |= inside
    for _ in range(int(rng.integers(2, 7))):  # machines
        offset = rng.uniform(-0.75, 0.75, 2) * half
        part, *_, inside = canvas.box(centre + along * offset[0] + normal(along) * offset[1],
                                      along, rng.uniform(1.5, 3, 2))
        canvas.paint(part, inside, rng.uniform(0.5, 0.8), height=height + 1.4)


def _draw_car_park(canvas: Canvas, centre, along, half) -> None:
    rng = canvas.rng
    part, u, v, inside = canvas.box(centre, along, half)
    inside &= canvas.road[part] == 0
    bay, depth = pixels(2.6), pixels(4.8)
    canvas.paint(part, inside, rng.uniform(0.24, 0.46), 0.05 * canvas.grain[part])
    canvas.paint(part, inside & (np.abs(v) > half[1] - depth) & (u % bay < 0.8), 0.75)
    canvas.taken[part] |= inside
    last = int(half[0] / bay) - 1
    for place in range(-last, last):
        for side in (-1, 1):
            if rng.random() < 0.45:
                spot = (centre + along * (bay * (place + 0.5) + 0.4)
                        + normal(along) * side * (half[1] - depth / 2))
                draw_car(canvas, spot, normal(along))


def draw_cars(canvas: Canvas, street: Street, density: float) -> None:
    rng = canvas.rng
    for point, tangent, outward, width in street.places(rng, pixels(14)):
        if rng.random() < density:
            offset = width * (0.22 if rng.random() < 0.7 else 0.41)
            draw_car(canvas, point + outward * offset, tangent)


def draw_car(canvas: Canvas, centre: np.ndarray, along: np.ndarray) -> None:
    rng = canvas.rng
    half = pixels(rng.uniform(1.9, 2.5)), pixels(rng.uniform(0.8, 0.95))
    part, u, v, body = canvas.box(centre, along, half)
    body &= canvas.height[part] < 1
    along_cabin = np.abs(u / half[0] + 0.1)
    cabin = body & (along_cabin < 0.55)
    roof = cabin & (along_cabin < 0.32) & (np.abs(v) < 0.8 * half[1])
    colour = CARS[rng.integers(len(CARS))]
    canvas.paint(part, body, colour, height=0.9)
    canvas.paint(part, cabin & ~roof, colour * 0.25 + 0.05)
    canvas.height[part][cabin] = 1.5


def draw_trees(canvas: Canvas, count: int, groves: int) -> None:
    rng = canvas.rng
    places = [rng.uniform(-0.02, 1.02, (count, 2)) * canvas.extent]
    for _ in range(groves):
        places.append(rng.uniform(0, 1, 2) * canvas.extent
                      + rng.normal(0, rng.uniform(6, 18), (int(rng.integers(8, 22)), 2)))
    leaf = LEAF * rng.uniform(0.75, 1.2)
    for place in np.concatenate(places):
        draw_tree(canvas, place, leaf)


def draw_street_trees(canvas: Canvas, street: Street, density: float) -> None:
    """Place a row of trees whose crowns reach over the edge of the street."""
    rng = canvas.rng
    leaf = LEAF * rng.uniform(0.8, 1.25)
    for point, _, outward, width in street.places(rng, pixels(9)):
        if rng.random() < density:
            away = width / 2 + pixels(rng.uniform(0.3, 2.5))
            draw_tree(canvas, point + outward * away, leaf)


def draw_tree(canvas: Canvas, centre: np.ndarray, leaf: np.ndarray) -> None:
    """Place a crown with an uneven outline, except on a roof."""
    rng = canvas.rng
    radius = pixels(rng.uniform(1.3, 4.2))
    part, u, v, _ = canvas.box(centre, unit(rng.uniform(0, 6.28)), (radius, radius))
    if (canvas.height[part][np.hypot(u, v) < 0.8] > 3).any():
        return
    angle, lumps = np.arctan2(v, u), canvas.grain[part]
    edge = radius * (1 + 0.12 * np.sin(3 * angle + rng.uniform(0, 6))
                     + 0.08 * np.sin(7 * angle + rng.uniform(0, 6)))
    relative = np.hypot(u, v) / edge
    top = METRES_PER_PIXEL * radius * rng.uniform(1.5, 2.2) + 1.5
    height = top * (0.55 + 0.45 * np.sqrt(np.clip(1 - relative**2, 0, 1))) + 0.35 * lumps
    crown = (relative < 1 + 0.1 * lumps) & (height > canvas.height[part])
    canvas.paint(part, crown, leaf * rng.uniform(0.75, 1.3) * [1, 1, rng.uniform(0.8, 1.1)],
                 0.22 * lumps, height)
