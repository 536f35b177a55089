"""The files that a prediction of rasters writes, checked before work begins.

No input is ever replaced, and other files only with ``--overwrite``. Vectors, preview and page that
are there beside a finished map are kept.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bhvit_seg.errors import UserError, load_package
from bhvit_seg.fileio import identify, refuse_inputs
from bhvit_seg.inference.inputs import files_behind
from bhvit_seg.raster.journal import folder_of
from bhvit_seg.raster.opening import open_quietly, paths_read

# A map's tag that says which run it is of, see bhvit_seg.raster.identity.
IDENTITY_TAG = 'BHVIT_SEG_RUN'


@dataclass(frozen=True)
class OutputPaths:
    """The files of one map; None where there is none."""

    labels: Path
    probabilities: Path | None = None
    vector: Path | None = None
    centerlines: Path | None = None  # the file of the polygons where that is a GeoPackage
    preview: Path | None = None
    page: Path | None = None  # beside the preview

    @property
    def rasters(self) -> list[Path]:
        return [path for path in (self.labels, self.probabilities) if path is not None]

    @property
    def companions(self) -> dict[str, Path]:
        """What is made from the finished map, polygons and lines under the names of layers."""
        given = {'polygons': self.vector, 'centerlines': self.centerlines,
                 'preview': self.preview, 'page': self.page}
        return {name: path for name, path in given.items() if path is not None}


def plan_outputs(labels: Path, probabilities: bool = False, vector: str | None = None,
                 centerlines: bool = False, preview: str | None = None, several: bool = False
                 ) -> OutputPaths:
    """Return the files of a map; with ``several`` maps only the suffixes of companions count."""
    polygons, picture = (
        given and (labels.with_suffix(Path(given).suffix) if several else Path(given))
        for given in (vector, preview))
    lines = None
    if polygons is not None and centerlines:
        from bhvit_seg.raster.vector.centerlines import centerlines_path

        lines = centerlines_path(polygons)
    return OutputPaths(labels, probabilities_path(labels) if probabilities else None, polygons,
                       lines, picture, picture and picture.with_suffix('.html'))


def probabilities_path(labels: Path) -> Path:
    return labels.with_name(f'{labels.stem}_probabilities{labels.suffix}')


def sidecar_of(raster: Path) -> Path:
    """Return the path of GDAL's ``.aux.xml`` of a raster."""
    return raster.with_name(f'{raster.name}.aux.xml')


def run_of(raster: Path) -> str | None:
    """Return the digest of the run that wrote a map, or None."""
    try:
        with open_quietly(raster) as dataset:
            return dataset.tags().get(IDENTITY_TAG)
    except load_package('rasterio').errors.RasterioError:
        return None


def check_outputs(plans: Mapping[Path | str, OutputPaths], others: Iterable[str | Path] = (),
                  overwrite: bool = False) -> None:
    """Check that no output replaces an input or, without ``overwrite``, a file of the user's.

    ``plans`` has the files of each raster's map, ``others`` are more inputs: the model's.

    Raises:
        UserError: An output is an input, a folder, another output, or a file that was not written
            for this map.
    """
    read = [*(path for raster in plans for path in paths_read(raster)), *others]
    inputs = [file for path in read for file in files_behind(path)]
    owners: dict[object, Path | str] = {}
    for raster, plan in plans.items():
        written = dict.fromkeys([*plan.rasters, *map(sidecar_of, plan.rasters),
                                 *plan.companions.values()])
        refuse_inputs([*written, folder_of(plan.labels)], inputs, 'output')
        for path in written:
            if identify(path) in owners:
                raise UserError(f'{path} would be written twice, for {owners[identify(path)]} and '
                                f'for {raster}: give outputs of different names')
            owners[identify(path)] = raster
            if path.is_dir():
                raise UserError(f'{path} is a folder: give the name of the file to write')
        strange = [path for path in plan.rasters if os.path.lexists(path) and run_of(path) is None]
        strange += [path for path in map(sidecar_of, plan.rasters)
                    if path.is_file() and b'<PAMDataset' not in path.read_bytes()[:200]]
        there = [path for name, path in plan.companions.items() if is_there(path, name)]
        strange += there if run_of(plan.labels) is None else []
        if strange and not overwrite:
            raise UserError(f'{strange[0]} is there already, and was not written for this map: '
                            'give another output, or --overwrite to replace it')


def is_there(path: Path, layer: str) -> bool:
    """Whether a file exists or, of a GeoPackage, the layer; a UserError if it is no GeoPackage."""
    if path.suffix.lower() != '.gpkg' or not path.is_file():
        return os.path.lexists(path)
    try:
        uri = f'{path.absolute().as_uri()}?mode=ro'
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            return any(name == layer for name, in database.execute(
                "SELECT table_name FROM gpkg_contents WHERE data_type <> 'tiles'"))
    except sqlite3.DatabaseError as error:
        raise UserError(f'{path} is there already and is not a GeoPackage: give another '
                        '--vector') from error
