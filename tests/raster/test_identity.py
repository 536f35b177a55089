"""What tells one raster from another: files, archives, servers, and pixels where nothing else."""

from __future__ import annotations

import json
import os

import numpy as np
from raster.rasters import write_raster
from rasterio.shutil import copy

from bhvit_seg.raster.identity import fingerprint
from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.reading import RasterSource

OPTIONS = ReadOptions(channels=3, fill=(0, 0, 0))


def noise(seed: int = 0, size: tuple[int, int] = (70, 83)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 250, (3, *size), dtype=np.uint8)


def print_of(path: str | os.PathLike) -> dict:
    with RasterSource(path, OPTIONS) as source:
        found = fingerprint(source)
    assert found == json.loads(json.dumps(found))
    return found


def test_files_and_those_they_refer_to(tmp_path):
    tile, path = write_raster(tmp_path / 'tile.tif', noise()), tmp_path / 'mosaic.vrt'
    copy(tile, path, driver='VRT')
    first = print_of(path)
    assert str(tmp_path) not in json.dumps(first)
    assert {name for name, *_ in first['files']} == {'mosaic.vrt', 'tile.tif'}
    (tmp_path / 'tile.tif.aux.xml').write_text('<PAMDataset></PAMDataset>')
    assert print_of(path) == first
    os.utime(tile, ns=(1, 1))
    assert print_of(path) != first
    # GDAL does not name sources of sources.
    (tmp_path / 'deep').mkdir()
    outer = tmp_path / 'deep' / 'outer.vrt'
    outer.write_text(path.read_text().replace('>tile.tif<', '>../mosaic.vrt<'))
    second = print_of(outer)
    assert {name for name, *_ in second['files']} == {'outer.vrt', 'mosaic.vrt', 'tile.tif'}
    os.utime(tile, ns=(2, 2))
    assert print_of(outer) != second
