import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bhvit_seg.errors import UserError
from bhvit_seg.inference.windows import lay_grid

OVERLAPS = st.one_of(st.sampled_from([0, 0.1, 0.25, 0.3, 0.5, 0.9, 0.999]),
                     st.integers(0, 9999).map(lambda share: share / 10000))


@st.composite
def layouts(draw):
    """Rasters of one to two windows, strips of one pixel, and sides that nothing divides."""
    window = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    size = tuple(draw(st.one_of(st.just(1), st.integers(1, 2 * side), st.integers(1, 150)))
                 for side in window)
    return size, window, draw(OVERLAPS), draw(st.integers(1, 6))


@settings(deadline=None)
@given(layouts())
def test_windows_cover_the_padded_raster_evenly_with_the_overlap_asked(layout):
    size, sides, overlap, cell = layout
    grid = lay_grid(*layout)
    assert (grid.cells_high, grid.cells_wide) == tuple(math.ceil(side / cell) for side in size)
    for cells, wanted_side, side, starts, shared in zip(
            (grid.cells_high, grid.cells_wide), sides, grid.window, (grid.tops, grid.lefts),
            grid.overlap):
        assert side == cell * min(math.ceil(wanted_side / cell), cells)
        assert all(start % cell == 0 for start in starts)
        side, starts = side // cell, [start // cell for start in starts]
        wanted = max(1, math.floor(side * (1 - Decimal(str(float(overlap))))))
        strides = np.diff(starts)
        assert starts[0] == 0 and starts[-1] == cells - side
        if len(starts) == 1:
            assert shared == 0
            continue
        assert 1 <= strides.min() and strides.max() <= wanted
        assert strides.max() - strides.min() <= 1, 'spread evenly'
        assert shared == side - strides.max() >= 0
        assert (len(starts) - 2) * wanted < cells - side, 'with one less overlap is too little'


@pytest.mark.parametrize('arguments, words', [
    (((5, 5), (4, 0), 0.5, 1), 'window of 4 x 0'),
    (((5, 5), (4, 4), 1, 1), 'overlap 1 '),
    (((5, 5), (4, 4), float('nan'), 1), 'overlap nan'),
])
def test_impossible_layouts_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        lay_grid(*arguments)
