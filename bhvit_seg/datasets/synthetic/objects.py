"""Objects on the ground: houses, halls, car parks, trees and cars."""

from __future__ import annotations

import numpy as np

from bhvit_seg.datasets.synthetic.canvas import METRES_PER_PIXEL, Canvas, normal, unit
from bhvit_seg.datasets.synthetic.roads import Street

PITCHED_ROOFS = np.array([[0.43, 0.25, 0.20], [0.48, 0.32, 0.26], [0.36, 0.23, 0.20],
                          [0.38, 0.36, 0.35], [0.30, 0.29, 0.29], [0.45, 0.38, 0.32],
                          [0.52, 0.50, 0.48], [0.34, 0.33, 0.34]])
CAR_COLOURS = np.array([[0.85, 0.85, 0.86], [0.80, 0.80, 0.80], [0.12, 0.12, 0.13],
                        [0.35, 0.36, 0.38], [0.50, 0.12, 0.10], [0.15, 0.22, 0.42],
                        [0.60, 0.61, 0.63]])


def draw_houses(canvas: Canvas, street: Street, density: float) -> None:
    """Place houses with gabled or hipped roofs along both sides of a street, some with a drive."""
    rng = canvas.rng
    plot = _pixels(rng.uniform(15, 22))
    for side in (-1, 1):
        for point, tangent, width in street.walk(plot, start=float(rng.uniform(0, plot))):
            if rng.random() > density:
                continue
            half = (_pixels(rng.uniform(4.5, 7)), _pixels(rng.uniform(3.5, 5)))
            outward = normal(tangent) * side
            setback = width / 2 + _pixels(rng.uniform(4, 9)) + half[1]
            centre = point + outward * setback
            along = tangent if rng.random() < 0.65 else normal(tangent)
            along = _turned(along, rng.normal(0, 0.05))
            if not canvas.is_free(centre, along, (half[0] + 2, half[1] + 2)):
                continue
            if rng.random() < 0.6:
                _draw_drive(canvas, point + tangent * half[0] * 0.6, outward, setback)
            _draw_pitched_roof(canvas, centre, along, half)


def draw_hall(canvas: Canvas, street: Street) -> None:
    """Place a large flat roof, often of the colour of asphalt, and a car park beside a street."""
    rng = canvas.rng
    for _ in range(12):
        index = int(rng.integers(8, len(street.points) - 8))
        tangent = street.tangents[index]
        outward = normal(tangent) * rng.choice([-1, 1])
        half = (_pixels(rng.uniform(10, 18)), _pixels(rng.uniform(7, 12)))
        yard = _pixels(rng.uniform(7, 9))
        start = street.points[index] + outward * (street.width[index] / 2 + _pixels(3))
        park = start + outward * yard
        hall = park + outward * (yard + half[1] + 3)
        if not canvas.is_free(hall, tangent, half) or not canvas.is_free(
                park, tangent, (half[0], yard - 2)):
            continue
        _draw_car_park(canvas, park, tangent, (half[0], yard))
        _draw_flat_roof(canvas, hall, tangent, half)
        return


def draw_trees(canvas: Canvas, count: int, groves: int) -> None:
    """Place single trees, also over roads, and groves."""
    rng = canvas.rng
    extent = np.array([canvas.size[1], canvas.size[0]], float)
    places = list(rng.uniform(-0.02, 1.02, (count, 2)) * extent)
    for _ in range(groves):
        middle = rng.uniform(0, 1, 2) * extent
        spread = rng.uniform(6, 18)
        places.extend(middle + rng.normal(0, spread, (int(rng.integers(8, 22)), 2)))
    leaf = np.array([0.16, 0.24, 0.11]) * rng.uniform(0.8, 1.25)
    for place in places:
        draw_tree(canvas, place, leaf)


def draw_street_trees(canvas: Canvas, street: Street, density: float) -> None:
    """Place a row of trees whose crowns reach over the edge of the street."""
    rng = canvas.rng
    leaf = np.array([0.18, 0.27, 0.12]) * rng.uniform(0.8, 1.2)
    for side in (-1, 1):
        for point, tangent, width in street.walk(_pixels(9), start=float(rng.uniform(0, 18))):
            if rng.random() < density:
                away = width / 2 + _pixels(rng.uniform(0.3, 2.5))
                draw_tree(canvas, point + normal(tangent) * side * away, leaf)


def draw_tree(canvas: Canvas, centre: np.ndarray, leaf: np.ndarray) -> None:
    """Place a crown with an uneven outline, except on a roof."""
    rng = canvas.rng
    column, row = np.floor(centre).astype(int)
    if 0 <= row < canvas.size[0] and 0 <= column < canvas.size[1] and (
            canvas.height[row, column] > 3):
        return
    radius = _pixels(rng.uniform(1.3, 4.2))
    part = canvas.local(centre, unit(rng.uniform(0, 6.28)), radius * 1.3)
    if part is None:
        return
    where, u, v = part
    angle = np.arctan2(v, u)
    edge = radius * (1 + 0.12 * np.sin(3 * angle + rng.uniform(0, 6))
                     + 0.08 * np.sin(7 * angle + rng.uniform(0, 6)))
    relative = np.hypot(u, v) / edge
    lumps = canvas.grain[where]
    crown = relative < 1 + 0.1 * lumps
    top = METRES_PER_PIXEL * radius * rng.uniform(1.5, 2.2) + 1.5
    height = top * (0.55 + 0.45 * np.sqrt(np.clip(1 - relative**2, 0, 1))) + 0.35 * lumps
    taller = crown & (height > canvas.height[where])
    canvas.height[where][taller] = height[taller]
    canvas.paint(where, taller, leaf * rng.uniform(0.75, 1.3) * [1, 1, rng.uniform(0.8, 1.1)],
                 0.22 * lumps)


def draw_cars(canvas: Canvas, street: Street, density: float) -> None:
    """Place cars in the lanes of a street and parked at its edge."""
    rng = canvas.rng
    for point, tangent, width in street.walk(_pixels(7), start=float(rng.uniform(0, 14))):
        if rng.random() < density:
            offset = width * (0.22 if rng.random() < 0.7 else 0.41) * rng.choice([-1, 1])
            draw_car(canvas, point + normal(tangent) * offset, tangent)


def draw_car(canvas: Canvas, centre: np.ndarray, along: np.ndarray) -> None:
    """Place one car: body, dark windows, lighter roof."""
    rng = canvas.rng
    half = (_pixels(rng.uniform(1.9, 2.5)), _pixels(rng.uniform(0.8, 0.95)))
    part = canvas.local(centre, along, half[0] + 2)
    if part is None:
        return
    where, u, v = part
    body = (np.abs(u) < half[0]) & (np.abs(v) < half[1])
    body &= canvas.height[where] < 1
    cabin = body & (np.abs(u + 0.1 * half[0]) < 0.55 * half[0])
    roof = cabin & (np.abs(u + 0.1 * half[0]) < 0.32 * half[0]) & (np.abs(v) < 0.8 * half[1])
    colour = CAR_COLOURS[rng.integers(len(CAR_COLOURS))]
    canvas.paint(where, body, colour)
    canvas.paint(where, cabin & ~roof, colour * 0.25 + 0.05)
    canvas.height[where][body] = 0.9
    canvas.height[where][cabin] = 1.5


def _draw_pitched_roof(canvas: Canvas, centre, along, half) -> None:
    rng = canvas.rng
    where, u, v = canvas.local(centre, along, float(np.hypot(*half)) + 1)
    inside = (np.abs(u) < half[0]) & (np.abs(v) < half[1])
    eaves, rise = rng.uniform(3, 5.5), rng.uniform(1.5, 3)
    slope = 1 - np.abs(v) / half[1]
    if rng.random() < 0.35:
        slope = np.minimum(slope, (half[0] - np.abs(u)) / half[1])
    colour = PITCHED_ROOFS[rng.integers(len(PITCHED_ROOFS))] * rng.uniform(0.85, 1.2)
    rows_of_tiles = 0.05 * np.sin(v * 2.4) + 0.05 * canvas.grain[where]
    canvas.paint(where, inside, colour, rows_of_tiles)
    canvas.height[where][inside] = (eaves + rise * slope)[inside]
    canvas.taken[where] |= inside
    if rng.random() < 0.5:
        ridge = centre + along * half[0] * rng.uniform(-0.6, 0.6)
        chimney = canvas.local(ridge, along, 3)
        if chimney is not None:
            where, u, v = chimney
            brick = (np.abs(u) < 1.1) & (np.abs(v) < 1.1)
            canvas.paint(where, brick, [0.45, 0.33, 0.28])
            canvas.height[where][brick] = eaves + rise + 1


def _draw_flat_roof(canvas: Canvas, centre, along, half) -> None:
    rng = canvas.rng
    where, u, v = canvas.local(centre, along, float(np.hypot(*half)) + 1)
    inside = (np.abs(u) < half[0]) & (np.abs(v) < half[1])
    rim = inside & ((np.abs(u) > half[0] - 1.5) | (np.abs(v) > half[1] - 1.5))
    tone = rng.uniform(0.25, 0.5) if rng.random() < 0.7 else rng.uniform(0.6, 0.8)
    height = rng.uniform(5, 10)
    canvas.paint(where, inside, [tone] * 3, 0.04 * canvas.grain[where])
    canvas.paint(where, rim, [tone * 1.25] * 3)
    canvas.height[where][inside] = height
    canvas.taken[where] |= inside
    for _ in range(int(rng.integers(2, 7))):
        offset = rng.uniform(-0.75, 0.75, 2) * half
        box = canvas.local(centre + along * offset[0] + normal(along) * offset[1], along, 5)
        if box is None:
            continue
        where, u, v = box
        unit_box = (np.abs(u) < rng.uniform(1.5, 3)) & (np.abs(v) < rng.uniform(1.5, 3))
        canvas.paint(where, unit_box, [rng.uniform(0.5, 0.8)] * 3)
        canvas.height[where][unit_box] = height + 1.4


def _draw_car_park(canvas: Canvas, centre, along, half) -> None:
    rng = canvas.rng
    where, u, v = canvas.local(centre, along, float(np.hypot(*half)) + 1)
    inside = (np.abs(u) < half[0]) & (np.abs(v) < half[1]) & (canvas.road[where] == 0)
    canvas.paint(where, inside, [rng.uniform(0.24, 0.46)] * 3, 0.05 * canvas.grain[where])
    canvas.taken[where] |= inside
    bay = _pixels(2.6)
    depth = _pixels(4.8)
    lines = inside & (np.abs(v) > half[1] - depth) & (np.mod(u, bay) < 0.8)
    canvas.paint(where, lines, [0.75] * 3)
    for side in (-1, 1):
        for place in np.arange(-half[0] + bay, half[0] - bay, bay):
            if rng.random() < 0.45:
                middle = np.floor(place / bay) * bay + bay / 2 + 0.4
                spot = centre + along * middle + normal(along) * side * (half[1] - depth / 2)
                draw_car(canvas, spot, normal(along))


def _draw_drive(canvas: Canvas, start, outward, length) -> None:
    rng = canvas.rng
    where_u_v = canvas.local(start + outward * length / 2, outward, length / 2 + 4)
    if where_u_v is None:
        return
    where, u, v = where_u_v
    inside = (np.abs(u) < length / 2) & (np.abs(v) < _pixels(1.4)) & (canvas.road[where] == 0)
    canvas.paint(where, inside, [rng.uniform(0.4, 0.65)] * 3, 0.05 * canvas.grain[where])


def _pixels(metres: float) -> float:
    return float(metres) / METRES_PER_PIXEL


def _turned(direction: np.ndarray, angle: float) -> np.ndarray:
    return direction * np.cos(angle) + normal(direction) * np.sin(angle)
