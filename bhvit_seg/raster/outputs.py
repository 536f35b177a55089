"""The files that a prediction of rasters writes, checked before work begins.

No input is ever replaced, and other files only with ``--overwrite``, except those written for the
same map. Vectors, preview and page are recorded in the map's ``.aux.xml`` with size and time, so
that a repeated command recognises its own unchanged files.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bhvit_seg.errors import UserError, load_package
from bhvit_seg.fileio import identify, refuse_inputs, stamp_of, write_text
from bhvit_seg.inference.inputs import files_behind
from bhvit_seg.raster.journal import folder_of
from bhvit_seg.raster.opening import open_quietly, paths_read

# A map's tag that says which run it is of, see bhvit_seg.raster.identity.
IDENTITY_TAG = 'BHVIT_SEG_RUN'
_DOMAIN = 'BHVIT_SEG_FILES'
LAYERS = ('polygons', 'centerlines')


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
    def companions(self) -> list[Path]:
        """Files made from the finished map, each once."""
        given = (self.vector, self.centerlines, self.preview, self.page)
        return list(dict.fromkeys(path for path in given if path is not None))


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
        written = [*plan.rasters, *map(sidecar_of, plan.rasters), *plan.companions]
        refuse_inputs([*written, folder_of(plan.labels)], inputs, 'output')
        for path in written:
            if identify(path) in owners:
                raise UserError(f'{path} would be written twice, for {owners[identify(path)]} and '
                                f'for {raster}: give outputs of different names')
            owners[identify(path)] = raster
            if path.is_dir():
                raise UserError(f'{path} is a folder: give the name of the file to write')
        _check_geopackages(plan, overwrite)
        if not overwrite:
            _refuse_strangers(plan)


def _refuse_strangers(plan: OutputPaths) -> None:
    """Refuse existing files that were not written for this map."""
    strange = [path for path in plan.rasters if os.path.lexists(path) and run_of(path) is None]
    strange += [sidecar_of(path) for path in plan.rasters
                if os.path.lexists(sidecar_of(path)) and _read_sidecar(path) is None]
    # GeoPackages are checked by their layers; a link to nothing is none.
    strange += [path for path in plan.companions
                if os.path.lexists(path) and not is_ours(plan.labels, path)
                and not (path.suffix.lower() == '.gpkg' and path.is_file())]
    if strange:
        raise UserError(f'{strange[0]} is there already, and was not written for this map: give '
                        'another output, or --overwrite to replace it')


def _check_geopackages(plan: OutputPaths, overwrite: bool) -> None:
    """Refuse existing GeoPackages into which layers cannot or must not be written."""
    for layer, path in zip(LAYERS, (plan.vector, plan.centerlines)):
        if path is None or path.suffix.lower() != '.gpkg' or not path.is_file():
            continue
        uri = f'{path.absolute().as_uri()}?mode=ro'
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
                tables = {name for name, in database.execute('SELECT name FROM sqlite_master')}
                layers = {name for name, in database.execute(
                    "SELECT table_name FROM gpkg_contents WHERE data_type <> 'tiles'")}
        except sqlite3.DatabaseError as error:
            raise UserError(f'{path} is there already and is not a GeoPackage: give another '
                            '--vector') from error
        # SQLite does not distinguish names by case.
        taken = [name for name in tables - layers.intersection(LAYERS) if name.lower() == layer]
        if taken:
            raise UserError(f'{path} has {taken[0]} already, which is not a layer {layer} that '
                            'could be replaced: give another --vector')
        if layer in layers and not overwrite and not is_ours(plan.labels, path):
            raise UserError(f'{path} has a layer {layer} already, which was not written for '
                            f'{plan.labels}: give another --vector, or --overwrite to replace '
                            'that layer')


def _read_sidecar(raster: Path) -> ElementTree.Element | None:
    """Return the root of a raster's ``.aux.xml``, or None."""
    try:
        root = ElementTree.parse(sidecar_of(raster)).getroot()
    except (OSError, ElementTree.ParseError):
        return None
    return root if root.tag == 'PAMDataset' else None


def notes_of(labels: Path) -> dict[str, list[str]]:
    """Return the records of a map's companions by their paths relative to its folder: the digest of
    the options and, once the file is complete, its size and modification time."""
    root = _read_sidecar(labels)
    return {} if root is None else {entry.get('key', ''): (entry.text or '').split(' ')
            for entry in root.iterfind(f"Metadata[@domain='{_DOMAIN}']/MDI")}


def write_notes(labels: Path, files: Sequence[Path], made_by: str, finished: bool) -> None:
    """Record that companions are being written, or are complete; see :func:`notes_of`."""
    notes = notes_of(labels)
    for file in files:
        notes[os.path.relpath(file, labels.parent)] = [
            made_by, *(map(str, stamp_of(file)) if finished else ())]
    root = _read_sidecar(labels)
    if root is None:
        root = ElementTree.Element('PAMDataset')
    for former in root.findall(f"Metadata[@domain='{_DOMAIN}']"):
        root.remove(former)
    domain = ElementTree.SubElement(root, 'Metadata', domain=_DOMAIN)
    for name, note in notes.items():
        ElementTree.SubElement(domain, 'MDI', key=name).text = ' '.join(note)
    ElementTree.indent(root)
    write_text(sidecar_of(labels), ElementTree.tostring(root, encoding='unicode') + '\n')


def is_ours(labels: Path, file: Path, made_by: str | None = None) -> bool:
    """Whether a file is an unchanged companion of a map, complete if ``made_by`` is given."""
    note = notes_of(labels).get(os.path.relpath(file, labels.parent))
    if note is None or not file.exists():
        return False
    # Without size and time: of a run that ended while the file was written.
    if len(note) == 1:
        return made_by is None
    return note[1:] == list(map(str, stamp_of(file))) and made_by in (None, note[0])
