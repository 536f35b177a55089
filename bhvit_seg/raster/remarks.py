"""Notes, before mapping, about a raster whose interpretation may not be intended."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import rasterio

from bhvit_seg.errors import UserError
from bhvit_seg.inference.inputs import files_behind
from bhvit_seg.inference.windows import Window
from bhvit_seg.raster import collars
from bhvit_seg.raster.opening import open_quietly
from bhvit_seg.raster.reading import RasterSource
from bhvit_seg.raster.resampling import pixel_sides

COLOURS = ('red', 'green', 'blue')
SAMPLES, SIDE = 5, 64  # windows along the diagonal, and their side in pixels
FEWEST_LEVELS = 8  # of 255; a range that leaves fewer was meant for other values
ORIENTATION = 0x0112
FAR = 1.5  # largest factor between the ground sampling distances of raster and model
TOO_COARSE = 4  # times the pixels of the training images, which resampling does not make up for


def find_remarks(source: RasterSource, ground_sampling_distance: float | None = None
                 ) -> Iterator[str]:
    """Yield possible misinterpretations of a raster, given the model's metres per pixel."""
    with open_quietly(source.path) as dataset:
        yield from _band_order(source, dataset)
        yield from _orientation(source, dataset)
    if source.options.value_range is not None:
        yield from _values(source, *source.options.value_range)
    # On a server the tiles of all corners would be fetched for it.
    if source.options.border_nodata is None and files_behind(source.path):
        yield from _collar(source)
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


def _orientation(source: RasterSource, dataset: rasterio.io.DatasetReader) -> Iterator[str]:
    """Look for an EXIF orientation, which viewers apply, but GDAL and maps do not."""
    value = dataset.tags().get('EXIF_Orientation')
    if value is None and dataset.driver in ('GTiff', 'PNG', 'WEBP'):
        # GDAL reports it for JPEG only. Pillow reads the header; its limits are on decoding.
        with contextlib.suppress(Exception), warnings.catch_warnings():
            from PIL import Image

            warnings.simplefilter('ignore')
            with Image.open(files_behind(source.path)[0]) as image:
                value = image.getexif().get(ORIENTATION)
    if value is not None and str(value) not in ('0', '1'):
        yield (f'{source.path} has the EXIF orientation {value}, which viewers apply; it is mapped '
               'as its pixels are stored: turn the file first, with `exiftran -a` for one, if it '
               'should be seen as viewers show it')


def _values(source: RasterSource, low: float, high: float) -> Iterator[str]:
    """Compare sampled values with the range that they are scaled by."""
    parts = []
    for place in np.linspace(0, 1, SAMPLES):
        top, left = (int(place * max(0, side - SIDE)) for side in (source.height, source.width))
        pixels, valid = source.decode(
            Window(top, left, min(SIDE, source.height), min(SIDE, source.width)))
        parts.append(pixels.ravel() if valid is None else pixels[valid].ravel())
    if not (values := np.concatenate(parts).astype(np.float64)).size:
        return
    first, last = np.percentile(values, (2, 98))
    levels = 255 * np.diff(np.clip((np.array([first, last]) - low) / (high - low), 0, 1))[0]
    if first < last and levels < FEWEST_LEVELS:
        yield (f'most values of {source.path} lie between {first:g} and {last:g} where it was '
               f'sampled, which --value-range {low:g} {high:g} makes {levels:.1f} of 255 grey '
               'levels: give the range that the values have')


def _collar(source: RasterSource) -> Iterator[str]:
    """Look for an undeclared collar where it would begin in the corners, but not in the middle."""
    height, width = min(collars.SIDE, source.height), min(SIDE, source.width)
    bottom, right = source.height - height, source.width - width
    corners = {'upper left': (0, 0), 'upper right': (0, right), 'lower left': (bottom, 0),
               'lower right': (bottom, right)}
    pixels = {name: source.decode(Window(*at, height, width)) for name, at in {
        **corners, 'middle': (bottom // 2, right // 2)}.items()}
    for name in collars.COLOURS:
        try:
            colour = collars.make_colour(name, source.dtype, source.options.border_tolerance,
                                         source.options.value_range)
        except UserError:  # what black and white are is not known
            return
        found = [corner for corner in corners if pixels[corner][1] is None
                 and colour.covers(pixels[corner][0]).all()
                 and (pixels[corner][0] == colour.exact).mean() > 0.5]
        if found and not colour.covers(pixels['middle'][0]).all():
            yield (f'{source.path} is {name} in its {" and ".join(found)} corner and calls that '
                   'valid: if it is a border without an image, --border-nodata leaves it out of '
                   'the map')


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
        way = ('--resolution model resamples the raster to that' if found / expected < TOO_COARSE
               else 'it lacks the details that the model looks for; take another model')
        yield (f'pixels of {source.path} are {found:.3g} m wide, and the model was trained on '
               f'pixels of {expected:g} m: {way}')
