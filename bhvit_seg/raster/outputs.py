"""The files that a prediction of rasters writes, checked before work begins.

No input is ever replaced, and other existing files only with ``--overwrite``, except those that
were written for the same map. Vectors, preview and page are noted in the map's ``.aux.xml`` with
size and time, so that a repeated command recognizes its own files, unless they were changed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_text
from bhvit_seg.inference.inputs import files_behind
from bhvit_seg.raster.journal import IDENTITY, folder_of
from bhvit_seg.raster.opening import load_rasterio, open_quietly, paths_read

# A map's tag that says which run it is of, see bhvit_seg.raster.identity.
IDENTITY_TAG = 'BHVIT_SEG_RUN'
_DOMAIN = 'BHVIT_SEG_FILES'
LAYERS = ('polygons', 'centerlines')


@dataclass(frozen=True)
class OutputPaths:
    """The files of one map.

    Attributes:
        labels: The GeoTIFF of class ids.
        probabilities: That of probabilities, as all others None where there is none.
        vector: The polygons.
        centerlines: The centre lines; the polygons' file where that is a GeoPackage.
        preview: The PNG.
        page: The HTML file that goes with it.
    """

    labels: Path
    probabilities: Path | None = None
    vector: Path | None = None
    centerlines: Path | None = None
    preview: Path | None = None
    page: Path | None = None

    @property
    def rasters(self) -> list[Path]:
        """The GeoTIFFs."""
        return [path for path in (self.labels, self.probabilities) if path is not None]

    @property
    def companions(self) -> list[Path]:
        """What is made of the finished map, each file once."""
        given = (self.vector, self.centerlines, self.preview, self.page)
        return list(dict.fromkeys(path for path in given if path is not None))


def plan_outputs(labels: Path, probabilities: bool = False, vector: str | None = None,
                 centerlines: bool = False, preview: str | None = None, several: bool = False
                 ) -> OutputPaths:
    """Return the files of a map.

    Args:
        labels: The map.
        probabilities: Whether ``<labels>_probabilities.tif`` is written.
        vector: The file of polygons; of several maps its suffix counts, and the name is the map's.
        centerlines: Whether centre lines are written.
        preview: The picture, named as ``vector`` is.
        several: Whether there are other maps.
    """
    def beside(given: str | None) -> Path | None:
        if given is None:
            return None
        return labels.with_suffix(Path(given).suffix) if several else Path(given)

    polygons, picture, lines = beside(vector), beside(preview), None
    if polygons is not None and centerlines:
        from bhvit_seg.raster.vector.centerlines import centerlines_path

        lines = centerlines_path(polygons)
    return OutputPaths(
        labels, probabilities_path(labels) if probabilities else None, polygons, lines, picture,
        None if picture is None else picture.with_suffix('.html'))


def probabilities_path(labels: Path) -> Path:
    """Return where the probabilities of a map go."""
    return labels.with_name(f'{labels.stem}_probabilities{labels.suffix}')


def sidecar_of(raster: Path) -> Path:
    """Return where GDAL keeps what a GeoTIFF cannot hold."""
    return raster.with_name(f'{raster.name}.aux.xml')


def check_outputs(plans: Mapping[Path | str, OutputPaths], others: Iterable[str | Path] = (),
                  overwrite: bool = False) -> None:
    """Check that no output replaces an input or, unasked, a file of the user's.

    Args:
        plans: The files of each raster's map.
        others: More files that are read: the model's.
        overwrite: Whether existing files may be replaced; inputs never are.

    Raises:
        UserError: An output is an input, a folder, another output, or a file that this package
            did not write for this map.
    """
    read = [*(path for raster in plans for path in paths_read(raster)), *others]
    inputs = {_key(file): file for path in read for file in files_behind(path)}
    owners: dict[object, Path | str] = {}
    for raster, plan in plans.items():
        for path in (*_all_of(plan), folder_of(plan.labels)):
            key = _key(path)
            if key in inputs:
                raise UserError(f'{path}, which is to be written, is the input {inputs[key]}: '
                                'give another output')
            if key in owners:
                raise UserError(f'{path} would be written twice, for {owners[key]} and for '
                                f'{raster}: give outputs of different names')
            owners[key] = raster
            if path.is_dir() and path != folder_of(plan.labels):
                raise UserError(f'{path} is a folder: give the name of the file to write')
        _check_geopackages(plan, overwrite)
        if not overwrite:
            _refuse_strangers(plan)
        _check_journal(folder_of(plan.labels))


def same_file(one: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Whether two paths are one file, also by links; an address of GDAL is none."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _all_of(plan: OutputPaths) -> list[Path]:
    return [*plan.rasters, *map(sidecar_of, plan.rasters), *plan.companions]


def _key(path: Path) -> object:
    """Return what two names of one file have in common, whether it exists or not."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    real = Path(os.path.realpath(path.parent)) / path.name
    return str(real).casefold() if _ignores_case(real.parent) else str(real)


def _ignores_case(folder: Path) -> bool:
    """Whether names in a folder, or in the one that it will be in, are compared without case."""
    while not folder.exists():
        folder = folder.parent
    swapped = folder.with_name(folder.name.swapcase())
    return swapped.name != folder.name and same_file(folder, swapped)


def _refuse_strangers(plan: OutputPaths) -> None:
    """Refuse existing files that were not written for this map."""
    for path in plan.rasters:
        if os.path.lexists(path) and not _is_map(path):
            raise _stranger(path)
        sidecar = sidecar_of(path)
        if os.path.lexists(sidecar) and _read_sidecar(path) is None:
            raise _stranger(sidecar)
    ours = notes_of(plan.labels)
    for path in plan.companions:
        if not os.path.lexists(path) or _is_noted(path, ours.get(_name(plan.labels, path))):
            continue
        # Those are checked by their layers; a link to nothing is none.
        if path.suffix.lower() != '.gpkg' or not path.is_file():
            raise _stranger(path)


def _stranger(path: Path) -> UserError:
    return UserError(f'{path} is there already, and was not written for this map: give another '
                     'output, or --overwrite to replace it')


def _is_map(path: Path) -> bool:
    try:
        with open_quietly(path) as dataset:
            return IDENTITY_TAG in dataset.tags()
    except load_rasterio().errors.RasterioError:
        return False


def _check_geopackages(plan: OutputPaths, overwrite: bool) -> None:
    """Refuse existing GeoPackages that layers cannot be written into, or unasked may not be."""
    from bhvit_seg.raster.vector.features_io import SQLITE

    ours = notes_of(plan.labels)
    for layer, path in zip(LAYERS, (plan.vector, plan.centerlines)):
        if path is None or path.suffix.lower() != '.gpkg' or not path.is_file():
            continue
        with open(path, 'rb') as file:
            if file.read(len(SQLITE)) != SQLITE:
                raise UserError(f'{path} is there already and is not a GeoPackage: give another '
                                '--vector')
        layers, others = _tables_of(path)
        taken = [name for name in others if name.lower() == layer]
        if taken:
            raise UserError(f'{path} has {taken[0]} already, which is not a layer {layer} that '
                            'could be replaced: give another --vector')
        known = _is_noted(path, ours.get(_name(plan.labels, path)))
        if layer in layers and not known and not overwrite:
            raise UserError(f'{path} has a layer {layer} already, which was not written for '
                            f'{plan.labels}: give another --vector, or --overwrite to replace '
                            'that layer')


def _tables_of(path: Path) -> tuple[set[str], set[str]]:
    """Return the layers of a GeoPackage, and its other tables and views, such as those of tiles.

    Of a layer whose name differs only in case SQLite makes no second one.
    """
    import pyogrio

    try:
        found = {name for name, _ in pyogrio.list_layers(path)}
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError):
        # Without layers, such as one of tiles alone.
        found = set()
    tables: set[str] = set()
    with contextlib.closing(sqlite3.connect(f'{path.absolute().as_uri()}?mode=ro', uri=True)
                            ) as database, contextlib.suppress(sqlite3.Error):
        tables = {name for name, in database.execute('SELECT name FROM sqlite_master')}
    layers = found & set(LAYERS)
    return layers, (found | tables) - layers


def _check_journal(folder: Path) -> None:
    """Refuse a journal's folder that exists and is not a journal."""
    if not os.path.lexists(folder):
        return
    strange = not folder.is_dir() or (
        not (folder / IDENTITY).exists() and any(path.name != 'lock' for path in folder.iterdir()))
    if strange:
        raise UserError(f'{folder}, where finished blocks are to be kept, is there already and '
                        'holds something else: move it away, or give another output')


def _read_sidecar(raster: Path) -> ElementTree.Element | None:
    """Return what GDAL keeps beside a raster; None where that is nothing, or not of GDAL."""
    try:
        root = ElementTree.parse(sidecar_of(raster)).getroot()
    except (OSError, ElementTree.ParseError):
        return None
    return root if root.tag == 'PAMDataset' else None


def notes_of(labels: Path) -> dict[str, list[str]]:
    """Return the notes about the companions of a map, by their paths relative to its folder.

    A note is a digest of the options that the file was made with and, once it is complete, its size
    and time of change.
    """
    root = _read_sidecar(labels)
    return {} if root is None else {entry.get('key', ''): (entry.text or '').split(' ')
            for entry in root.iterfind(f"Metadata[@domain='{_DOMAIN}']/MDI")}


def write_notes(labels: Path, files: Sequence[Path], made_by: str, finished: bool) -> None:
    """Note that companions are being written, or are complete; see :func:`notes_of`."""
    root = _read_sidecar(labels)
    if root is None:
        root = ElementTree.Element('PAMDataset')
    domain = root.find(f"Metadata[@domain='{_DOMAIN}']")
    if domain is None:
        domain = ElementTree.SubElement(root, 'Metadata', domain=_DOMAIN)
    for file in files:
        name = _name(labels, file)
        entry = next((entry for entry in domain if entry.get('key') == name), None)
        if entry is None:
            entry = ElementTree.SubElement(domain, 'MDI', key=name)
        status = file.stat() if finished else None
        entry.text = ' '.join([made_by, *([str(status.st_size), str(status.st_mtime_ns)]
                                          if status else [])])
    ElementTree.indent(root)
    write_text(sidecar_of(labels), ElementTree.tostring(root, encoding='unicode') + '\n')


def is_whole(labels: Path, file: Path, made_by: str) -> bool:
    """Whether a companion exists, unchanged, as made with the options of the digest ``made_by``."""
    note = notes_of(labels).get(_name(labels, file))
    return note is not None and note[0] == made_by and len(note) == 3 and file.exists() and (
        _is_noted(file, note))


def _is_noted(path: Path, note: Sequence[str] | None) -> bool:
    """Whether a file is the one that was noted, and was not changed since."""
    if note is None or not path.exists():
        return False
    status = path.stat()
    # Without size and time: of a run that ended while the file was written.
    return len(note) == 1 or note[1:] == [str(status.st_size), str(status.st_mtime_ns)]


def _name(labels: Path, file: Path) -> str:
    return os.path.relpath(file, labels.parent)
