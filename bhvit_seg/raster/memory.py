"""The size of blocks for limits of memory and of the time that an interrupt loses."""

import re
import timeit
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.windows import Grid
from bhvit_seg.raster.writing import OutputOptions

TILE = OutputOptions().tile  # blocks are whole tiles of the file that is written
_UNITS = {'': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40}
SECONDS = 30  # of the model for a block, which is lost where it is interrupted
# Windows side by side in a block narrowed for that: those over its border are computed twice.
NARROWEST = 32
OVERVIEWS = 32 << 20  # memory of GDAL beside its cache during overviews


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as ``1500M``, ``1.5GB`` or ``2GiB``."""
    match = re.fullmatch(r'(\d+(?:\.\d*)?)\s*([kmgt]?)(?:i?b)?', text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f'--max-memory {text} is not a size: give one such as 1500M or 2GB')
    return int(float(match[1]) * _UNITS[match[2].lower()])


def resident_memory() -> int:
    """Return the resident memory of this process in bytes, 0 where it is unknown."""
    try:
        fields = Path('/proc/self/statm').read_text().split()
    except OSError:
        return 0
    import resource

    return int(fields[1]) * resource.getpagesize()


class Demand(NamedTuple):
    """What determines the memory of a block."""

    classes: int
    pixel: int  # bytes of a pixel's channels
    probability: int  # bytes of a class's probability at a pixel, 0 where none are computed
    batch: int  # windows that are computed at once


def block_size(grid: Grid, demand: Demand, limit: int) -> tuple[int, int]:
    """Return height and width of the largest blocks that fit into ``limit`` bytes beside what is in
    memory already, or raise a UserError."""
    width = -(-grid.width // TILE) * TILE
    while (needed := memory_of(grid, demand, width)) > limit:
        if width == TILE:
            raise UserError(
                f'--max-memory leaves {max(limit, 0) >> 20} MB besides what is loaded, but blocks '
                f'of {TILE}×{TILE} pixels take {-(-needed >> 20)} MB: give '
                f'{-(-(needed - limit) >> 20)} MB more, or a smaller --window')
        width = max(TILE, width // TILE * 3 // 4 * TILE)
    return TILE, width


def width_in_time(grid: Grid, model: Predictor, dtype: np.dtype, width: int) -> int:
    """Return the width of blocks that take at most about :data:`SECONDS` each on this machine, of
    at most ``width``; a model that is so slow that they would be narrow is given longer."""
    rows, columns = (side - grid.cell * both for side, both in zip(grid.window, grid.overlap))
    if min(width, grid.width) <= NARROWEST * columns:
        return width
    windows = np.zeros((model.batch, *grid.window, model.channels), dtype)
    seconds = min(timeit.repeat(lambda: model.scores(windows), number=1, repeat=2)) / model.batch
    widest = max(NARROWEST * columns, int(SECONDS / seconds * rows * columns / TILE))
    even = -(-grid.width // -(-grid.width // widest))
    return min(width, -(-even // TILE) * TILE)


def memory_of(grid: Grid, demand: Demand, width: int) -> int:
    """Return an upper bound, in bytes, for blocks of ``TILE`` rows and ``width`` columns."""
    rows, width = min(TILE, grid.height), min(width, grid.width)
    cell, (window_rows, window_columns) = grid.cell, grid.window
    columns = width + 2 * (window_columns + cell)
    # Two strips of pixels with their masks, and the next one; the windows cut out of one.
    pixels = (3 * (window_rows + 2 * cell) * columns * (demand.pixel + 1)
              + demand.batch * window_rows * window_columns * demand.pixel)
    # float32: the rows that blending accumulates and returns, and those of two blocks.
    scores = (4 * (demand.classes + 1) * (width // cell + 3)
              * (5 * (rows // cell + 3) + 3 * (window_rows // cell)))
    # Copies of a block on its way to the journal. The writer's last strip, the parts of the next
    # one, these joined, and what is being written.
    probabilities = demand.classes * demand.probability
    results = rows * (3 * width * (2 + probabilities) + 4 * grid.width * (1 + probabilities))
    return pixels + scores + results


def reading_cache(limit: int) -> int:
    """Return the bytes of GDAL's cache of decoded pixels: an eighth, 16 to 512 MB."""
    return min(max(limit // 8, 16 << 20), 512 << 20)
