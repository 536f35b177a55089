"""How large the blocks of a raster may be for a limit of memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bhvit_seg.errors import UserError
from bhvit_seg.inference import blending
from bhvit_seg.inference.windows import Grid
from bhvit_seg.raster.writing import OutputOptions

# Blocks are whole tiles of the file that is written.
TILE = OutputOptions().tile
_UNITS = {'': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40}
_LEAST_CACHE, _MOST_CACHE = 16 << 20, 512 << 20


def parse_memory(text: str) -> int:
    """Return the bytes that a size such as ``1500M``, ``1.5GB`` or ``2GiB`` means.

    Raises:
        UserError: It is no size.
    """
    match = re.fullmatch(r'(\d+(?:\.\d*)?)\s*([kmgt]?)(?:i?b)?', text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f'--max-memory {text} is no size: give one such as 1500M or 2GB')
    return int(float(match[1]) * _UNITS[match[2].lower()])


def resident_memory() -> int:
    """Return the bytes of memory that this process holds, 0 where the system does not tell."""
    try:
        fields = Path('/proc/self/statm').read_text().split()
    except OSError:
        return 0
    import resource

    return int(fields[1]) * resource.getpagesize()


@dataclass(frozen=True)
class Demand:
    """What decides how much memory a block takes.

    Attributes:
        classes: Scores of a cell.
        pixel: Bytes of a pixel's channels.
        probability: Bytes of a class's probability at a pixel, 0 where none are computed.
        batch: How many windows are computed at once.
    """

    classes: int
    pixel: int
    probability: int
    batch: int


def block_size(grid: Grid, demand: Demand, limit: int) -> tuple[int, int]:
    """Return height and width of the largest blocks whose work fits into memory.

    Args:
        grid: Where windows lie.
        demand: What a pixel takes.
        limit: Bytes, the model and everything else that is there already not counted.

    Raises:
        UserError: Not even the narrowest blocks fit.
    """
    width = -(-grid.width // TILE) * TILE
    while True:
        needed = memory_of(grid, demand, width)
        if needed <= limit:
            return TILE, width
        if width == TILE:
            raise UserError(
                f'--max-memory leaves {max(limit, 0) >> 20} MB besides what is loaded, but blocks '
                f'of {TILE}×{TILE} pixels take {-(-needed >> 20)} MB: give '
                f'{-(-(needed - limit) >> 20)} MB more, or a smaller --window')
        width = max(TILE, width // TILE * 3 // 4 * TILE)


def memory_of(grid: Grid, demand: Demand, width: int) -> int:
    """Return the bytes that mapping blocks of :data:`TILE` rows and ``width`` columns takes."""
    width = min(width, grid.width)
    rows = min(TILE, grid.height)
    columns = width + 2 * grid.window[1] + 2 * grid.cell
    # Two strips, and the pieces of the next one before they are joined.
    pixels = 3 * (grid.window[0] + 2 * grid.cell) * columns * (demand.pixel + 1)
    windows = demand.batch * grid.window[0] * grid.window[1] * demand.pixel
    cell_rows, cell_columns = -(-rows // grid.cell) + 2, -(-width // grid.cell) + 2
    blended = blending.memory(grid, demand.classes, cell_columns,
                              cell_rows + grid.window_cells[0])
    # The scores of a block, joined with those of the one before, and the labeller's copy.
    scores = 3 * 4 * demand.classes * cell_rows * cell_columns
    # Labels, masks, probabilities, and their copies on the way to the file.
    results = 3 * rows * width * (2 + demand.classes * demand.probability)
    # The writer's stripe, as wide as the raster.
    stripe = 2 * rows * grid.width * (1 + demand.classes * demand.probability)
    return pixels + windows + blended + scores + results + stripe


def reading_cache(limit: int) -> int:
    """Return the bytes that GDAL may keep of what it has decoded."""
    return min(max(limit // 8, _LEAST_CACHE), _MOST_CACHE)
