"""Label maps and probabilities as GeoTIFFs.

A file is written from the top down under a temporary name, read back, and renamed when it is whole.
Settings were measured on 20,000 × 20,000 labels in regions of about 50 pixels: deflate at level 5
compresses to 4 %, more than twice as fast as level 6 (3.4 %); a predictor makes labels larger;
GDAL's threads hide disk errors. Overviews take the nearest label: the most frequent one takes three
to eight times as long, and thin classes vanish.
"""

from __future__ import annotations

import contextlib
import os
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import bhvit_seg
from bhvit_seg.errors import UserError, first_line, load_package
from bhvit_seg.fileio import write_atomically, write_text
from bhvit_seg.raster.journal import cannot_write
from bhvit_seg.raster.opening import CLASS_TAG, open_quietly

if TYPE_CHECKING:
    from bhvit_seg.raster.reading import RasterSource

NODATA = 255
# GDAL's creation options by compression.
_COMPRESSIONS: dict[str, dict[str, Any]] = {
    'deflate': {'zlevel': 5}, 'lzw': {}, 'zstd': {'zstd_level': 9}, 'none': {}}


@dataclass(frozen=True)
class OutputOptions:
    """How maps are written; a UserError reports an unknown ``compress`` or ``tile``."""

    cog: bool = False  # labels as a cloud-optimized GeoTIFF, as probabilities always are
    compress: str = 'deflate'  # or 'lzw', 'zstd', 'none'
    overviews: bool = True  # of half, a quarter ... of the size, until one fits into a tile
    tile: int = 512  # side in pixels, a multiple of 16

    def __post_init__(self) -> None:
        if self.compress not in _COMPRESSIONS:
            raise UserError(f'there is no compression {self.compress!r}: give one of '
                            f'{", ".join(_COMPRESSIONS)}')
        if self.tile < 16 or self.tile % 16:
            raise UserError(f'tiles of {self.tile} pixels cannot be written: give a multiple of '
                            '16 pixels')


def write_labels(out: str | os.PathLike, source: RasterSource,
                 strips: Iterable[tuple[int, np.ndarray]], classes: Sequence[str],
                 palette: Sequence[Sequence[int]], options: OutputOptions = OutputOptions(),
                 tags: Mapping[str, Any] | None = None) -> None:
    """Write a raster of class ids: one band, with colours, names, nodata 255 and overviews.

    Class names are the band's tags ``CLASS_<id>`` and, as categories for GIS programs, in
    ``<out>.aux.xml``.

    Args:
        source: Provides height, width, crs, transform, gcps and rpcs.
        strips: From the top down without gaps: the first row, a multiple of the tile, and ``(rows,
            width)`` uint8 ids, 255 for no data. All but the last have a multiple of the tile's
            rows.
        palette: Red, green and blue of each class, 0..255.
        tags: More tags of the file.

    Raises:
        UserError: rasterio is missing, or the file cannot be written; then nothing has its name.
    """
    assert len(palette) == len(classes) <= NODATA
    listing = ', '.join(f'{index} {name}' for index, name in enumerate(classes))
    # Nodata has no opacity, so that viewers do not paint it.
    colours = {index: (*map(int, colour), 255) for index, colour in enumerate(palette)}
    profile = {'count': 1, 'dtype': 'uint8', 'nodata': NODATA}
    with _new_file(out, source, profile, 1, options, 'nearest', classes) as writer:
        writer.describe(f'classes: {listing}; {NODATA} no data', tags)
        writer.dataset.update_tags(
            1, **{f'{CLASS_TAG}{index}': name for index, name in enumerate(classes)})
        writer.dataset.write_colormap(1, {**colours, NODATA: (0, 0, 0, 0)})
        for top, labels in strips:
            writer.write(top, labels[None])


def write_probabilities(out: str | os.PathLike, source: RasterSource,
                        strips: Iterable[tuple[int, np.ndarray, np.ndarray | None]],
                        classes: Sequence[str], dtype: str,
                        options: OutputOptions = OutputOptions(),
                        tags: Mapping[str, Any] | None = None) -> None:
    """Write probabilities: one band per class, named after it, as a cloud-optimized GeoTIFF.

    uint8 has the scale 1/255 and an internal mask; float16 has the nodata value NaN, and is read as
    float32 by GDAL before 3.11. Other arguments, and errors, are those of :func:`write_labels`.

    Args:
        strips: The first row, probabilities ``(classes, rows, width)``, and which pixels are
            valid, ``(rows, width)`` bool, or None for all.
        dtype: ``'uint8'``, for probabilities in units of 1/255, or ``'float16'``.
    """
    assert dtype in ('uint8', 'float16')
    in_bytes = dtype == 'uint8'
    profile: dict[str, Any] = {'count': len(classes), 'dtype': 'uint8'}
    if not in_bytes:
        profile.update(dtype='float32', nbits=16, nodata=float('nan'))
    with _new_file(out, source, profile, 2 if in_bytes else 1, replace(options, cog=True),
                   'average') as writer:
        writer.describe('probabilities of classes', tags)
        writer.dataset.descriptions = tuple(classes)
        if in_bytes:
            writer.dataset.scales = (1 / 255,) * len(classes)
        for top, probabilities, valid in strips:
            assert probabilities.dtype == dtype
            if in_bytes:
                writer.write(top, probabilities, valid)
            else:
                writer.write(top, probabilities.astype(np.float32) if valid is None else
                             np.where(valid, probabilities.astype(np.float32), np.nan))


@contextlib.contextmanager
def _new_file(out: str | os.PathLike, source: RasterSource, profile: Mapping[str, Any],
              predictor: int, options: OutputOptions, resampling: str,
              classes: Sequence[str] = ()) -> Iterator[_Writer]:
    """Yield a writer of a file that gets its name when it is whole, and was read back."""
    rasterio = load_package('rasterio')
    from rasterio._err import CPLE_BaseError

    out = Path(out)
    try:
        with write_atomically(out) as partial:
            try:
                writer = _Writer(partial, source, profile, predictor, options)
                with writer.open():
                    yield writer
                writer.finish(resampling)
                _write_sidecar(partial, out, classes)
            finally:
                for beside in partial.parent.glob(f'{partial.name}.*'):
                    beside.unlink()
    except (OSError, rasterio.errors.RasterioError, CPLE_BaseError) as error:
        reason = getattr(error, 'strerror', None) or first_line(error.__cause__ or error)
        raise cannot_write(out, reason) from error


class _Writer:
    """Writes one GeoTIFF from the top down and checks that it can be read back."""

    def __init__(self, path: Path, source: RasterSource, profile: Mapping[str, Any],
                 predictor: int, options: OutputOptions) -> None:
        self._path = path
        # A cloud-optimized file is a copy of one that has its overviews.
        self._first = path.with_name(f'{path.name}.first.tif') if options.cog else path
        self._size = source.height, source.width
        self._options = options
        self._creation = creation_options(options, predictor)
        if 'nbits' in profile:
            self._creation['nbits'] = profile['nbits']
        self._profile = {**_georeference(source), **profile, **self._creation}
        self._next = 0
        self._pending: Future[None] = Future()
        self._pending.set_result(None)
        self._written: list[tuple[int, int, int]] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Open the file; a thread writes rows while the next ones are made."""
        height, width = self._size
        with open_quietly(self._first, 'w', driver='GTiff', height=height, width=width,
                          **self._profile) as self.dataset, ThreadPoolExecutor(1) as self._executor:
            yield
            self._pending.result()

    def describe(self, text: str, tags: Mapping[str, Any] | None) -> None:
        # The transform is that of areas: tagged as points, it would be shifted and rounded.
        tags = {key: value for key, value in (tags or {}).items() if key != 'AREA_OR_POINT'}
        self.dataset.update_tags(**{
            'TIFFTAG_SOFTWARE': f'bhvit_seg {bhvit_seg.__version__}',
            'TIFFTAG_IMAGEDESCRIPTION': text, **tags})

    def write(self, top: int, bands: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Write the next rows, ``(bands, rows, width)``; without nodata their mask too."""
        rows, width = bands.shape[1:]
        assert top == self._next and width == self._size[1]
        assert rows % self._options.tile == 0 or top + rows == self._size[0]
        if 'nodata' not in self._profile and valid is None:
            valid = np.full((rows, width), True)
        self._pending.result()
        self._pending = self._executor.submit(self._write, top, bands, valid)
        self._next += rows

    def _write(self, top: int, bands: np.ndarray, mask: np.ndarray | None) -> None:
        rows, width = bands.shape[1:]
        window = ((top, top + rows), (0, width))
        self.dataset.write(bands, window=window)
        if mask is not None:
            with load_package('rasterio').Env(GDAL_TIFF_INTERNAL_MASK=True):
                self.dataset.write_mask(mask, window=window)
        self._written.append((top, rows, zlib.crc32(np.ascontiguousarray(bands))))

    def finish(self, resampling: str) -> None:
        """Add overviews, lay the file out as requested, and read it back."""
        import rasterio
        import rasterio.shutil
        from rasterio.enums import Resampling

        assert self._next == self._size[0]
        levels = (overview_levels(self._size, self._options.tile) if self._options.overviews
                  else [])
        # Overviews are compressed at GDAL's default, slower level otherwise.
        level = {f'{key}_overview'.upper(): value
                 for key, value in _COMPRESSIONS[self._options.compress].items()}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, **level):
            if levels:
                with open_quietly(self._first, 'r+') as dataset:
                    dataset.build_overviews(levels, Resampling[resampling])
            if self._options.cog:
                # The COG driver gives the same layout, size and speed, but overviews without the
                # last of an odd number of rows or columns.
                rasterio.shutil.copy(self._first, self._path, driver='GTiff',
                                     copy_src_overviews=True, **self._creation)
        # Some disks report only now that they are full, and closing may fail silently: read all of
        # it.
        with open(self._path, 'rb+') as file:
            os.fsync(file.fileno())
        with open_quietly(self._path) as dataset:
            for top, rows, checksum in self._written:
                window = ((top, top + rows), (0, self._size[1]))
                # GDAL from 3.11 on reads 16 bits as float16.
                found = dataset.read(window=window, out_dtype=self._profile['dtype'])
                if zlib.crc32(found) != checksum:
                    raise OSError(f'rows {top} to {top + rows} are not read as written')
                dataset.dataset_mask(window=window)
            count = len(dataset.overviews(1))
        if count != len(levels):
            raise OSError(f'{count} overviews are read, of {len(levels)}')
        for number in range(count):
            with open_quietly(self._path, overview_level=number) as overview:
                for _, window in overview.block_windows(1):
                    overview.read(window=window)
                    overview.dataset_mask(window=window)


def creation_options(options: OutputOptions, predictor: int) -> dict[str, Any]:
    """Return the options of GDAL's GTiff driver; BigTIFF where 4 GB might not be enough."""
    chosen = {'tiled': True, 'blockxsize': options.tile, 'blockysize': options.tile,
              'interleave': 'band', 'bigtiff': 'IF_SAFER', 'compress': options.compress}
    if options.compress != 'none':
        chosen.update(predictor=predictor, **_COMPRESSIONS[options.compress])
    return chosen


def overview_levels(size: tuple[int, int], tile: int) -> list[int]:
    """Return the factors 2, 4 ... of overviews, until all of (height, width) fits into one tile."""
    levels: list[int] = []
    while max(size) / (levels[-1] if levels else 1) > tile:
        levels.append(2 * levels[-1] if levels else 2)
    return levels


def _georeference(source: RasterSource) -> dict[str, Any]:
    points, points_crs = source.gcps
    arguments: dict[str, Any] = {'crs': source.crs}
    if points:
        arguments.update(gcps=list(points), crs=points_crs)
    # The identity is what rasterio gives where there is none; written, it would be a transform.
    elif not source.transform.is_identity:
        arguments.update(transform=source.transform)
    if source.rpcs is not None:
        arguments.update(rpcs=source.rpcs)
    return arguments


def _write_sidecar(partial: Path, out: Path, classes: Sequence[str]) -> None:
    """Write the ``.aux.xml``: class names, and GDAL's own, such as a CRS beyond GeoTIFF keys."""
    sidecar = out.with_name(f'{out.name}.aux.xml')
    own = partial.with_name(f'{partial.name}.aux.xml')
    root = (ElementTree.fromstring(own.read_bytes()) if own.exists()
            else ElementTree.Element('PAMDataset'))
    if classes:
        band = root.find('PAMRasterBand')
        if band is None:
            band = ElementTree.SubElement(root, 'PAMRasterBand', band='1')
        names = ElementTree.SubElement(band, 'CategoryNames')
        for name in classes:
            ElementTree.SubElement(names, 'Category').text = name
    if len(root):
        ElementTree.indent(root)
        write_text(sidecar, ElementTree.tostring(root, encoding='unicode') + '\n')
    else:
        # Left by a former file of that name.
        sidecar.unlink(missing_ok=True)
