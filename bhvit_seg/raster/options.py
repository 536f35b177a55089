"""Options of reading rasters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bhvit_seg.errors import UserError
from bhvit_seg.raster.collars import COLOURS

BORDERS = (*COLOURS, 'auto')


@dataclass(frozen=True)
class ReadOptions:
    """How rasters are read for a model; a value out of range is a UserError."""

    channels: int = 3  # of the model
    fill: tuple[float, ...] = (0, 0, 0)  # the model's input at nodata, by channel
    # From 1, in the model's order, may repeat; by default the first ones that are not alpha.
    bands: tuple[int, ...] | None = None
    nodata: float | None = None  # replaces the declared value; NaN: no value means no data
    border_nodata: str | None = None  # 'black', 'white', 'auto': collars of that colour
    border_tolerance: int = 10  # of 255; see collars.make_colour for other types
    value_range: tuple[float, float] | None = None  # scaled to 0 and 255, clipped
    alpha: bool = True  # whether a band tagged as alpha marks nodata
    eight_bit: bool = True  # trained on 8 bits: other rasters need a value_range
    resolution: float | None = None  # metres per pixel to resample to

    def __post_init__(self) -> None:
        assert len(self.fill) == self.channels
        if self.border_nodata not in (None, *BORDERS):
            raise UserError(f'--border-nodata {self.border_nodata} is not a border: choose from '
                            f'{", ".join(BORDERS)}')
        if not 0 <= self.border_tolerance <= 127:
            raise UserError(f'--border-tolerance {self.border_tolerance} is out of range: give a '
                            'number from 0 to 127, such as 10')
        if self.resolution is not None and not 0 < self.resolution < math.inf:
            raise UserError(f'--resolution {self.resolution} is not a length: give metres, such as '
                            '0.5')
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UserError(f'--value-range {low} {high} is not a range: give two numbers, the '
                                'lower one first')
