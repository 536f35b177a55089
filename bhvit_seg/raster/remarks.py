"""Notes, before mapping, about a raster whose interpretation may not be intended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import rasterio

from bhvit_seg.errors import UserError
from bhvit_seg.raster.opening import open_quietly
from bhvit_seg.raster.reading import RasterSource
from bhvit_seg.raster.resampling import pixel_sides

COLOURS = ('red', 'green', 'blue')
FAR = 1.5  # largest factor between the ground sampling distances of raster and model


def find_remarks(source: RasterSource, ground_sampling_distance: float | None = None
                 ) -> Iterator[str]:
    """Yield possible misinterpretations of a raster, given the model's metres per pixel."""
    with open_quietly(source.path) as dataset:
        yield from _band_order(source, dataset)
    yield from _resolution(source, ground_sampling_distance)


def _band_order(source: RasterSource, dataset: rasterio.io.DatasetReader) -> Iterator[str]:
    """Compare the first three default bands with their colour tags."""
    tagged = [meaning.name for meaning in dataset.colorinterp]
    found = [tagged[band - 1] for band in source.bands[:3]]
    if (source.options.bands is None and len(source.bands) >= 3 and found != [*COLOURS]
            and set(COLOURS) <= set(tagged)):
        order = ' '.join(str(tagged.index(colour) + 1) for colour in COLOURS)
        yield (f'the bands of {source.path} are tagged {", ".join(found)} and are read in the '
               f"file's order: --bands {order} gives a model of colours red, green, blue")


def _resolution(source: RasterSource, expected: float | None) -> Iterator[str]:
    """Compare the ground sampling distance with that of the model, where both are known."""
    sides = None
    if expected is not None:
        with contextlib.suppress(UserError):  # pyproj is missing, which mapping does not need
            sides = pixel_sides(source)
    if sides is None:
        return
    found = float(np.sqrt(sides[0] * sides[1]))
    if not 1 / FAR <= found / expected <= FAR:
        yield (f'pixels of {source.path} are {found:.3g} m wide, and the model was trained on '
               f'pixels of {expected:g} m: --resolution model resamples the raster to that')
