"""Input and output of the vector formats: label rasters in strips, and layers of features.

Polygons and centre lines share it, so that names, colours and coordinate systems agree.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bhvit_seg.errors import UserError, first_line, load_package
from bhvit_seg.fileio import write_atomically
from bhvit_seg.raster.opening import class_names, open_raster
from bhvit_seg.raster.vector.geodesy import Geodesy

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.io import DatasetReader

DRIVERS = {'.gpkg': 'GPKG', '.geojson': 'GeoJSON', '.fgb': 'FlatGeobuf'}
# Several arrays of 8 bytes a pixel are made of a strip.
PIXELS_IN_STRIP = 4_000_000
# Largest rounding error of coordinates in GeoJSON, which are text, in pixels.
ROUNDING = 0.01
DECIMALS = 7
METRES_PER_DEGREE = 111_000
SQLITE = b'SQLite format 3\0'


@dataclass(frozen=True)
class LabelRaster:
    """A raster of class ids.

    Attributes:
        dataset: The open rasterio dataset.
        nodata: The id that stands for no class, or None.
        names: Names by id, where the raster has them.
        colours: Colours by id, ``'#rrggbb'``, where the raster has them.
    """

    dataset: DatasetReader
    nodata: int | None
    names: Mapping[int, str]
    colours: Mapping[int, str]

    @property
    def path(self) -> str:
        """The file's name."""
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
        """Return the class ids of rows and columns (all by default), uint8 (h, w).

        Raises:
            UserError: They cannot be read.
        """
        from rasterio.errors import RasterioError

        columns = columns or range(self.shape[1])
        try:
            return self.dataset.read(1, window=((rows.start, rows.stop),
                                                (columns.start, columns.stop)))
        except RasterioError as error:
            raise UserError(
                f'{self.path} cannot be read in rows {rows.start} to {rows.stop - 1} '
                f'({first_line(error.__cause__ or error)}): map the image again') from error

    def name(self, class_id: int) -> str:
        """Return the name of a class, or its id where it has none."""
        return self.names.get(class_id, str(class_id))

    def choose(self, classes: Sequence[int | str] | None) -> list[int]:
        """Return the ids of classes given by id or name; of all by default.

        Raises:
            UserError: There is no such class.
        """
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
    """Open a raster of class ids, such as ``bhvit-seg predict-raster`` writes.

    Raises:
        UserError: It cannot be opened, is of another kind, or rasterio is missing.
    """
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
    """Check that the suffix is that of a vector format that can be written.

    Raises:
        UserError: It is not, or a package is missing.
    """
    if out.suffix.lower() not in DRIVERS:
        raise UserError(f'{out} has no suffix of a vector format: give one of '
                        f'{", ".join(DRIVERS)}')
    load_package('pyogrio')


def check_place(dataset: DatasetReader, out: Path) -> Geodesy:
    """Check that features of a raster (open dataset) can be expressed in the format of a file.

    Raises:
        UserError: GeoJSON cannot express where they lie, or pyproj is missing.
    """
    geodesy = Geodesy(dataset.crs, dataset.transform, dataset.shape)
    if DRIVERS[out.suffix.lower()] == 'GeoJSON' and (not geodesy.located or geodesy.has_pole):
        if geodesy.located:
            obstacle = 'a pole in it'
        elif geodesy.known:
            obstacle = ('a CRS of another body' if geodesy.sides else
                        'a local CRS, which does not say where on Earth it is')
        elif dataset.gcps[0]:
            obstacle = 'ground control points only, which gdalwarp turns into a CRS and a transform'
        else:
            obstacle = 'a CRS without a transform' if dataset.crs else 'no CRS'
        raise UserError(f'{dataset.name} has {obstacle}, but GeoJSON ({out.name}) is in longitude '
                        'and latitude on WGS 84: give a name that ends in .gpkg or .fgb')
    return geodesy


def check_sizes(**sizes: float | None) -> None:
    """Check that sizes, where given, are above 0.

    Raises:
        UserError: One is not.
    """
    for name, size in sizes.items():
        if size is not None and not 0 < size < np.inf:
            raise UserError(f'{name}={size} is not a size: give a number above 0, or leave it out')


def to_map(geometries: np.ndarray, transform: Affine) -> np.ndarray:
    """Transform geometries from pixels to the raster's CRS; outer rings counter-clockwise."""
    import shapely

    linear = np.array([[transform.a, transform.b], [transform.d, transform.e]])
    origin = np.array([transform.c, transform.f])
    # They are clockwise on the screen.
    if transform.determinant < 0:
        geometries = shapely.reverse(geometries)
    return shapely.transform(geometries, lambda points: points @ linear.T + origin)


class LayerWriter:
    """Collects features and writes them as one layer, which may be empty.

    GeoJSON is in WGS 84, as RFC 7946 demands, the others in the raster's CRS. In an existing
    GeoPackage only the layer of that name is replaced; other formats are replaced as files. A layer
    is written by one call, so all features, 16 bytes a vertex, have to fit into memory.

    Args:
        out: The file.
        layer: Name of the layer.
        geometry_type: OGR's name of the geometries' type.
        fields: Type of each field.
        labels: The raster that the features are of.
        geodesy: Its measures, see :func:`check_place`.

    Raises:
        UserError: The file is the raster itself, or a GeoPackage that another program has open.
    """

    def __init__(self, out: Path, layer: str, geometry_type: str,
                 fields: Mapping[str, type | np.dtype], labels: LabelRaster, geodesy: Geodesy
                 ) -> None:
        self._out = out
        self._driver = DRIVERS[out.suffix.lower()]
        self._options: dict[str, str] = {}
        if out.exists() and os.path.exists(labels.path) and os.path.samefile(out, labels.path):
            raise UserError(f'{out} is the map that features are to be made of: give another name')
        if self._driver == 'GeoJSON':
            rounding = ROUNDING * geodesy.pixel_side / METRES_PER_DEGREE
            decimals = max(DECIMALS, int(np.ceil(-np.log10(rounding))))
            self._options = {'RFC7946': 'YES', 'COORDINATE_PRECISION': str(decimals)}
        if self._driver == 'GPKG':
            _check_closed(out)
        self._layer = layer
        self._geometry_type = geometry_type
        self._fields = fields
        crs = labels.dataset.crs
        self._crs = crs.to_wkt() if geodesy.known else None
        self._geometries: list[np.ndarray] = []
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in fields}

    def add(self, geometries: np.ndarray, columns: Mapping[str, Iterable[Any]]) -> None:
        """Add features: shapely geometries in the raster's CRS, and the fields' values."""
        import shapely

        self._geometries.append(shapely.to_wkb(geometries))
        for name, values in columns.items():
            self._columns[name].append(np.asarray(values, self._fields[name]))

    def __len__(self) -> int:
        return sum(map(len, self._geometries))

    def write(self) -> None:
        """Write the layer.

        Raises:
            UserError: It cannot be written.
        """
        import pyogrio
        from pyogrio.errors import CRSError, DataLayerError, DataSourceError, GeometryError

        try:
            with write_atomically(self._out) as partial, warnings.catch_warnings():
                # A raster without a CRS gives features without one.
                warnings.filterwarnings('ignore', "'crs' was not provided")
                if self._driver == 'GPKG' and self._out.exists():
                    # A copy is changed, so that a killed run leaves the file as it was.
                    _check_closed(self._out)
                    shutil.copyfile(self._out, partial)
                    with partial.open('rb') as file:
                        if file.read(len(SQLITE)) != SQLITE:
                            raise UserError(f'{self._out} is there already and is not a '
                                            'GeoPackage: give another name')
                pyogrio.raw.write(
                    partial, _join(self._geometries, object),
                    [_join(self._columns[name], kind) for name, kind in self._fields.items()],
                    list(self._fields), layer=self._layer, driver=self._driver,
                    geometry_type=self._geometry_type, crs=self._crs,
                    layer_options=self._options)
                # A full disk may be no error to GDAL.
                if len(pyogrio.read_bounds(partial, layer=self._layer)[0]) != len(self):
                    raise OSError('what was written cannot be read back')
        except (OSError, CRSError, DataLayerError, DataSourceError, GeometryError) as error:
            reason = getattr(error, 'strerror', None) or first_line(error)
            raise UserError(f'cannot write {self._out}: {reason}; make room there, or give a name '
                            'that can be written to') from error


def _check_closed(path: Path) -> None:
    """Check that no other program has a GeoPackage open: what it writes would be lost.

    Raises:
        UserError: One has.
    """
    for ending in ('-wal', '-shm', '-journal'):
        beside = path.with_name(path.name + ending)
        if path.exists() and beside.exists():
            raise UserError(f'{path} is open in another program, or was not closed by it '
                            f'({beside.name} is there): close it there')


def _join(parts: Sequence[np.ndarray], dtype: type | np.dtype) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *parts])
