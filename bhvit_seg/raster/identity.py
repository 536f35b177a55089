"""Identity of a run: its raster, model and options.

A finished map has a digest of it as a tag, and the journal of an unfinished one holds it in full,
so that results of another run are never taken for those of this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from bhvit_seg.errors import UserError
from bhvit_seg.inference.inputs import address_name, files_behind
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.windows import Grid
from bhvit_seg.raster.opening import open_quietly, paths_read
from bhvit_seg.raster.outputs import IDENTITY_TAG
from bhvit_seg.raster.reading import RasterSource
from bhvit_seg.raster.writing import OutputOptions

# Seconds that a server has to answer, and blocks of a raster that are read where it says nothing.
PATIENCE = 20
SAMPLED_BLOCKS = 16


def describe_run(source: RasterSource, model: Predictor, grid: Grid, output: OutputOptions,
                 probabilities: str | None) -> dict[str, Any]:
    """Return everything that affects the pixels of a map, under names that a user knows."""
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
    """Return what identifies a raster, as plain values.

    These are its layout and, for each file that GDAL reads for it (sources of a VRT, masks), name
    without folder, size and time of change. For a zip archive the checksums of its members are
    added. A URL is identified by the headers of its server, such as ETag, and anything else by a
    checksum of blocks spread over the raster.
    """
    with open_quietly(source.path) as dataset:
        # Viewers write statistics and overviews beside a raster.
        paths = [path for path in paths_read(source.path)
                 if not path.endswith(('.aux.xml', '.ovr'))]
        by_path = [list(_marks_of(path)) for path in paths]
        marks = sum(by_path, [])
        if not all(by_path):
            marks.append(['blocks', _checksum(dataset)])
        return {
            'name': address_name(source.path), 'width': source.width, 'height': source.height,
            'count': dataset.count, 'dtypes': list(dataset.dtypes),
            'nodata': [repr(value) for value in dataset.nodatavals], 'files': marks}


def _marks_of(path: str) -> Iterator[list[Any]]:
    """Yield lists that identify the content of a path or an address and begin with its name."""
    name = address_name(path)
    files = files_behind(path)
    for file in files:
        status = os.stat(file)
        mark = [name, file.name, status.st_size, status.st_mtime_ns]
        if '/vsizip/' in path or path.startswith('zip'):
            with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
                members = [(each.filename, each.CRC) for each in archive.infolist()]
                mark.append(zlib.crc32(repr(members).encode()))
        yield mark
    url = re.search(r'(?<!url=)https?://.*', path)
    if url and not files:
        with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
            request = urllib.request.Request(url[0], method='HEAD')
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                said = [answer.headers.get(key)
                        for key in ('ETag', 'Last-Modified', 'Content-Length')]
            # A length alone tells too little.
            if said[0] or said[1]:
                yield [name, *said]


def _checksum(dataset: rasterio.io.DatasetReader) -> int:
    """Return a checksum of some blocks of all bands."""
    rows, columns = dataset.block_shapes[0] if dataset.count else dataset.shape
    high, wide = -(-dataset.height // rows), -(-dataset.width // columns)
    checksum = 0
    for number in np.unique(np.linspace(0, high * wide - 1, SAMPLED_BLOCKS).astype(int)):
        top, left = number // wide * rows, number % wide * columns
        window = ((top, min(top + rows, dataset.height)),
                  (left, min(left + columns, dataset.width)))
        try:
            checksum = zlib.crc32(dataset.read(window=window), checksum)
        except rasterio.errors.RasterioError:
            checksum = zlib.crc32(b'unreadable', checksum)
    return checksum


def digests(identity: dict[str, Any], labels: Path, probabilities: Path | None) -> dict[Path, str]:
    """Return for each file of a map a short text that differs for different contents.

    That of labels is the same whether there are probabilities as well or not.
    """
    alone = {key: value for key, value in identity.items() if key != 'probabilities'}
    contents = {labels: alone} if probabilities is None else {
        labels: alone, probabilities: identity}
    return {path: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
            for path, content in contents.items()}


def is_finished(wanted: dict[Path, str]) -> bool:
    """Whether all files of a map exist, see :func:`digests`.

    Raises:
        UserError: An existing file has other contents.
    """
    for path, digest in wanted.items():
        if not path.exists():
            continue
        try:
            with open_quietly(path) as dataset:
                found = dataset.tags().get(IDENTITY_TAG)
        except rasterio.errors.RasterioError:
            found = None
        if found != digest:
            raise UserError(f'{path} is there already, and is not the map of this raster by this '
                            'model with these options: give another output, or --overwrite')
    return all(path.exists() for path in wanted)
