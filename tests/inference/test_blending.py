from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bhvit_seg.inference.blending import Blender
from bhvit_seg.inference.windows import Grid, lay_grid

CLASSES = 2


@st.composite
def grids(draw) -> Grid:
    """Grids of one to a few windows a side, strips among them."""
    window = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    size = tuple(draw(st.one_of(st.just(1), st.integers(1, 2 * side), st.integers(1, 30)))
                 for side in window)
    overlap = draw(st.sampled_from([0, 0.25, 0.3, 0.5, 0.7, 0.9]))
    return lay_grid(size, window, overlap, draw(st.integers(1, 3)))


@st.composite
def spans(draw, length: int) -> tuple[int, int]:
    first = draw(st.integers(0, length - 1))
    return first, draw(st.integers(first + 1, length))


def make_scores(grid: Grid, seed: int) -> dict[tuple[int, int], np.ndarray]:
    """Scores of every window; of very different sizes, so that the order of a sum shows."""
    rng = np.random.default_rng(seed)
    shape = CLASSES, *grid.window_cells
    return {(i, j): (rng.standard_normal(shape) * 10.0**rng.integers(-3, 4)).astype(np.float32)
            for i in range(len(grid.tops)) for j in range(len(grid.lefts))}


def plain_weight(k: int, side: int, overlap: int) -> np.float32:
    ramp = max(1, overlap)
    return np.float32(min(1, (k + 0.5) / ramp, (side - k - 0.5) / ramp))


def plain_blend(grid: Grid, scores: dict) -> np.ndarray:
    """Blend all cells of the grid, one after the other."""
    rows, columns = grid.window_cells
    means = np.zeros((CLASSES, grid.cells_high, grid.cells_wide), np.float32)
    for row, column in np.ndindex(*means.shape[1:]):
        total, sums = np.float32(0), [np.float32(0)] * CLASSES
        for (i, j), values in sorted(scores.items()):
            r, c = row - grid.tops[i] // grid.cell, column - grid.lefts[j] // grid.cell
            if 0 <= r < rows and 0 <= c < columns:
                weight = (plain_weight(r, rows, grid.overlap[0])
                          * plain_weight(c, columns, grid.overlap[1]))
                total += weight
                sums = [old + weight * value for old, value in zip(sums, values[:, r, c])]
        if total:
            means[:, row, column] = [value / total for value in sums]
    return means


def blend(grid: Grid, scores: dict, rows: tuple[int, int], columns: tuple[int, int], steps,
          step: int | None = None) -> np.ndarray:
    """Blend a part, taking ``steps`` rows at a time, with the windows that cover the part."""
    blender = Blender(grid, CLASSES, rows, columns, step)
    taken, done, parts = rows[0], grid.rows_over(*rows).start, []
    while taken < rows[1]:
        stop = min(taken + next(steps), rows[1])
        for i in range(done, grid.rows_over(taken, stop).stop):
            done = i + 1
            for j in grid.columns_over(*columns):
                if (i, j) in scores:
                    blender.add(i, j, scores[i, j])
        parts.append(blender.take(stop))
        assert parts[-1].dtype == np.float32 and parts[-1].flags.c_contiguous
        taken = stop
    return np.concatenate(parts, axis=1)


@settings(deadline=None)
@given(grids(), st.integers(0, 9), st.data())
def test_means_are_the_bits_of_a_plain_loop_whatever_is_computed_together(grid, seed, data):
    scores = make_scores(grid, seed)
    kept = data.draw(st.sets(st.sampled_from(sorted(scores))), label='windows')
    scores = {place: values for place, values in scores.items() if place in kept}
    whole = plain_blend(grid, scores)
    rows = data.draw(spans(grid.cells_high), label='rows')
    columns = data.draw(spans(grid.cells_wide), label='columns')
    step = data.draw(st.integers(1, 12), label='step')
    steps = iter(lambda: data.draw(st.integers(1, step), label='rows taken'), None)
    part = blend(grid, scores, rows, columns, steps, data.draw(st.sampled_from([step, None])))
    assert part.tobytes() == whole[:, slice(*rows), slice(*columns)].tobytes()
