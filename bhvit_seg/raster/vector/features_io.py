"""Input and output of vectors: label rasters in strips, and layers of features."""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bhvit_seg.errors import UserError, first_line, free_space, load_package
from bhvit_seg.fileio import write_atomically
from bhvit_seg.inference.windows import Window
from bhvit_seg.raster.opening import class_names, named_failure, open_raster
from bhvit_seg.raster.vector.geodesy import Geodesy

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

DRIVERS = {'.gpkg': 'GPKG', '.geojson': 'GeoJSON', '.fgb': 'FlatGeobuf'}
PIXELS_IN_STRIP = 4_000_000  # several arrays of 8 bytes a pixel are made of a strip
ROUNDING = 0.01  # largest rounding error of coordinates in GeoJSON, which are text, in pixels
DECIMALS = 7
METRES_PER_DEGREE = 111_000
SQLITE = b'SQLite format 3\0'


@dataclass(frozen=True)
class LabelRaster:
    dataset: DatasetReader
    nodata: int | None  # the id of no class
    names: Mapping[int, str]  # by id, where the raster has them
    colours: Mapping[int, str]  # ``'#rrggbb'``

    @property
    def path(self) -> str:
        return self.dataset.name

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.dataset.shape

    @property
    def strips(self) -> list[range]:
        """The rows of the strips to read, from the top down."""
        height, width = self.shape
        rows = max(1, PIXELS_IN_STRIP // width)
        tile = self.dataset.block_shapes[0][0]
        if rows > tile:
            rows -= rows % tile
        return [range(top, min(top + rows, height)) for top in range(0, height, rows)]

    def read(self, rows: range, columns: range | None = None) -> np.ndarray:
        """Return the class ids of rows and columns (all by default), uint8 (h, w)."""
        columns = columns or range(self.shape[1])
        window = Window(rows.start, columns.start, len(rows), len(columns))
        with named_failure(self.path, window=window):
            return self.dataset.read(1, window=((rows.start, rows.stop),
                                                (columns.start, columns.stop)))

    def name(self, class_id: int) -> str:
        return self.names.get(class_id, str(class_id))

    def choose(self, classes: Sequence[int | str] | None) -> list[int]:
        """Return the ids of classes given by id or name, all by default, or raise a UserError."""
        if classes is None:
            return [class_id for class_id in range(256) if class_id != self.nodata]
        known = {name: class_id for class_id, name in self.names.items()}
        chosen = []
        for given in classes:
            class_id = known.get(given, given)
            if isinstance(class_id, str) and class_id.isdecimal():
                class_id = int(class_id)
            if class_id not in (self.names or range(256)):
                listing = ', '.join(f'{key} {self.names[key]}' for key in sorted(self.names))
                raise UserError(f'{self.path} has no class {given!r}: give one of '
                                f'{listing or "its ids, 0 to 255"}')
            chosen.append(class_id)
        return list(dict.fromkeys(chosen))


@contextmanager
def open_labels(path: str | Path) -> Iterator[LabelRaster]:
    """Open a raster of class ids of ``bhvit-seg predict-raster``, or raise a UserError."""
    expected = 'a GeoTIFF of class ids, as bhvit-seg predict-raster writes it'
    with open_raster(path, expected) as dataset:
        if dataset.dtypes != ('uint8',):
            raise UserError(
                f'{path} has bands of {", ".join(dataset.dtypes)}, but class ids are one band of '
                'uint8: give a map, as bhvit-seg predict-raster writes it')
        try:
            colours = {class_id: '#{:02x}{:02x}{:02x}'.format(*colour)
                       for class_id, colour in dataset.colormap(1).items()}
        except ValueError:
            colours = {}
        nodata = dataset.nodata
        yield LabelRaster(dataset, None if nodata is None else int(nodata),
                          class_names(dataset), colours)


def check_output(out: Path) -> None:
    """Raise a UserError unless the suffix is that of a known vector format."""
    if out.suffix.lower() not in DRIVERS:
        raise UserError(f'{out} has no suffix of a vector format: give one of '
                        f'{", ".join(DRIVERS)}')
    load_package('pyogrio')


def check_place(dataset: DatasetReader, out: Path) -> Geodesy:
    """Return the geodesy of a raster; a UserError if GeoJSON cannot express its location."""
    geodesy = Geodesy(dataset.crs, dataset.transform, dataset.shape)
    if DRIVERS[out.suffix.lower()] == 'GeoJSON' and (not geodesy.located or geodesy.has_pole):
        raise UserError(f'{dataset.name} cannot be expressed in longitude and latitude, as GeoJSON '
                        f'({out.name}) demands, for which it needs a CRS of the Earth, a transform '
                        'and no pole in it: give a name that ends in .gpkg or .fgb')
    return geodesy


def check_sizes(**sizes: float | None) -> None:
    """Raise a UserError unless sizes, where given, are above 0."""
    for name, size in sizes.items():
        if size is not None and not 0 < size < np.inf:
            raise UserError(f'{name}={size} is not a size: give a number above 0, or leave it out')


class LayerWriter:
    """Collects features and writes them as one layer, which may be empty.

    GeoJSON is in WGS 84 (RFC 7946), others in the raster's CRS. In a GeoPackage only the layer of
    that name is replaced, other formats as files. All features, 16 bytes per vertex, have to fit
    into memory. ``geometry_type`` is OGR's name, ``measures`` are fields besides class, its name
    and colour. A raster as output, or a GeoPackage open elsewhere, is a UserError.
    """

    def __init__(self, out: Path, layer: str, geometry_type: str, measures: Sequence[str],
                 labels: LabelRaster, geodesy: Geodesy) -> None:
        self._out, self._labels = out, labels
        if out.exists() and os.path.exists(labels.path) and os.path.samefile(out, labels.path):
            raise UserError(f'{out} is the map that features are to be made of: give another name')
        self._options = {
            'layer': layer, 'geometry_type': geometry_type, 'driver': DRIVERS[out.suffix.lower()],
            'crs': labels.dataset.crs.to_wkt() if geodesy.known else None}
        if self._options['driver'] == 'GeoJSON':
            rounding = ROUNDING * geodesy.pixel_side / METRES_PER_DEGREE
            decimals = max(DECIMALS, int(np.ceil(-np.log10(rounding))))
            self._options['layer_options'] = {
                'RFC7946': 'YES', 'COORDINATE_PRECISION': str(decimals)}
        self._adds_layer = self._options['driver'] == 'GPKG'
        if self._adds_layer:
            _check_closed(out)
        kinds = {'class_id': np.int32, 'class': object, **dict.fromkeys(measures, np.float64),
                 'colour': object}
        self._columns = {name: [np.empty(0, kind)] for name, kind in kinds.items()}
        self._geometries = [np.empty(0, object)]
        self.counts: Counter[str] = Counter()  # features by class name
        self.sums: Counter[str] = Counter()  # of the first measure

    def add(self, geometries: np.ndarray, ids: Sequence[int], *measures: np.ndarray) -> None:
        """Add shapely geometries in pixels, their classes, and their measures."""
        import shapely

        transform = self._labels.dataset.transform
        linear = np.array([[transform.a, transform.b], [transform.d, transform.e]])
        # Outer rings are clockwise on the screen, and counter-clockwise in the map.
        if transform.determinant < 0:
            geometries = shapely.reverse(geometries)
        geometries = shapely.transform(
            geometries, lambda points: points @ linear.T + (transform.c, transform.f))
        self._geometries.append(shapely.to_wkb(geometries))
        names = [self._labels.name(class_id) for class_id in ids]
        self.counts.update(names)
        for name, size in zip(names, measures[0].tolist()):
            self.sums[name] += size
        colours = [self._labels.colours.get(class_id) for class_id in ids]
        for parts, values in zip(self._columns.values(), (ids, names, *measures, colours)):
            parts.append(np.asarray(values, parts[0].dtype))

    def write(self) -> None:
        import pyogrio
        from pyogrio.errors import CRSError, DataLayerError, DataSourceError, GeometryError

        geometries = np.concatenate(self._geometries)
        try:
            with write_atomically(self._out) as partial, warnings.catch_warnings():
                # A raster without a CRS gives features without one.
                warnings.filterwarnings('ignore', "'crs' was not provided")
                if self._adds_layer and self._out.exists():
                    # A copy is changed, so that a killed run leaves the file as it was.
                    _check_closed(self._out)
                    shutil.copyfile(self._out, partial)
                    with partial.open('rb') as file:
                        if file.read(len(SQLITE)) != SQLITE:
                            raise UserError(f'{self._out} is there already and is not a '
                                            'GeoPackage: give another name')
                pyogrio.raw.write(partial, geometries, list(map(
                    np.concatenate, self._columns.values())), list(self._columns), **self._options)
                # GDAL may not report a full disk.
                written = pyogrio.read_bounds(partial, layer=self._options['layer'])[0]
                if len(written) != len(geometries):
                    raise OSError('what was written cannot be read back')
        except (OSError, CRSError, DataLayerError, DataSourceError, GeometryError) as error:
            reason = getattr(error, 'strerror', None) or first_line(error)
            raise UserError(f'cannot write {self._out}: {reason} ({free_space(self._out)}); '
                            'make room there, or give a name that can be written to') from error


def _check_closed(path: Path) -> None:
    """Check that no other program has a GeoPackage open: its changes would be lost."""
    for ending in ('-wal', '-shm', '-journal'):
        beside = path.with_name(path.name + ending)
        if path.exists() and beside.exists():
            raise UserError(f'{path} is open in another program, or was not closed by it '
                            f'({beside.name} is there): close it there')
