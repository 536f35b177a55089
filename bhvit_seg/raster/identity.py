"""Identity of a run (raster, model, options), in map and journal, to prevent mixing runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import stamp_of
from bhvit_seg.inference.inputs import address_name, files_behind
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.windows import Grid
from bhvit_seg.raster.opening import open_quietly, paths_read
from bhvit_seg.raster.outputs import run_of
from bhvit_seg.raster.reading import RasterSource
from bhvit_seg.raster.writing import OutputOptions


def describe_run(source: RasterSource, model: Predictor, grid: Grid, output: OutputOptions,
                 probabilities: str | None) -> dict[str, Any]:
    """Return everything that affects the pixels of a map, by names known to users."""
    return {
        'raster': fingerprint(source),
        'model': {'name': model.name, 'sha256': model.digest},
        'reading': asdict(source.options),
        'windows': {'size': grid.window, 'overlap': grid.overlap, 'cell': grid.cell,
                    'batch': model.batch},
        'output': asdict(output),
        'probabilities': probabilities,
    }


def fingerprint(source: RasterSource) -> dict[str, Any]:
    """Return what identifies a raster: layout, and name, size and modification time of each file
    on disk that GDAL reads for it."""
    marks: list[list[Any]] = []
    with open_quietly(source.path) as dataset:
        for path in paths_read(source.path):
            # Viewers write statistics and overviews beside a raster.
            if path.endswith(('.aux.xml', '.ovr')):
                continue
            marks += [[address_name(path), file.name, *stamp_of(file)]
                      for file in files_behind(path)]
        return {
            'name': address_name(source.path), 'width': source.width, 'height': source.height,
            'count': dataset.count, 'dtypes': list(dataset.dtypes),
            'nodata': [repr(value) for value in dataset.nodatavals], 'files': marks}


def digests(identity: dict[str, Any], labels: Path, probabilities: Path | None) -> dict[Path, str]:
    """Return digests of the identity for each file; labels do not depend on probabilities."""
    contents = {labels: {key: identity[key] for key in identity if key != 'probabilities'}}
    if probabilities is not None:
        contents[probabilities] = identity
    return {path: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
            for path, content in contents.items()}


def is_finished(wanted: dict[Path, str]) -> bool:
    """Whether all files of a map exist; a UserError if one has another digest."""
    for path in filter(Path.exists, wanted):
        if run_of(path) != wanted[path]:
            raise UserError(f'{path} is there already, and is not the map of this raster by this '
                            'model with these options: give another output, or --overwrite')
    return all(map(Path.exists, wanted))
