"""Writing maps on disks that fail, and for programs that fail or are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from raster.strips import CLASSES, PALETTE, draw_labels, names_in, place, strips

from bhvit_seg.errors import UserError
from bhvit_seg.raster import writing
from bhvit_seg.raster.journal import Journal
from bhvit_seg.raster.writing import OutputOptions, write_labels

pytest.importorskip('rasterio')


@pytest.fixture(scope='module')
def labels() -> np.ndarray:
    return draw_labels()


def test_a_failing_producer_leaves_nothing(tmp_path, labels):
    out = tmp_path / 'map.tif'
    out.write_text('what was there before')

    def fail():
        yield 0, labels[:512]
        raise UserError('the raster is damaged')

    with pytest.raises(UserError, match='^the raster is damaged$'):
        write_labels(out, place(), fail(), CLASSES, PALETTE)
    assert names_in(tmp_path) == ['map.tif'] and out.read_text() == 'what was there before'


LIMITED = """
import json, resource, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, rasterio
from bhvit_seg.errors import UserError
from bhvit_seg.raster.writing import OutputOptions, write_labels, write_probabilities
rng = np.random.default_rng(0)
ids = rng.integers(0, 3, (700, 600), np.uint8)
source = SimpleNamespace(height=700, width=600, crs=None, transform=rasterio.Affine.identity(),
                         gcps=([], None), rpcs=None)
out, kind = Path(sys.argv[1]) / 'map.tif', sys.argv[2]
def write():
    if kind == 'uint8':
        write_probabilities(out, source, [(0, ids[None, :512], ids[:512] > 1),
                                          (512, ids[None, 512:], ids[512:] > 1)], 'a', kind)
    else:
        write_labels(out, source, [(0, ids[:512]), (512, ids[512:])], 'abc', [(0, 0, 0)] * 3,
                     OutputOptions(cog=kind == 'cog'))
write()
whole = out.stat().st_size
results = []
for parts in [*range(0, 100, 7), 98, 99, 100]:
    for path in out.parent.iterdir():
        path.unlink()
    limit = whole * parts // 100 - (3 if parts == 100 else 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write()
        message = None
    except UserError as error:
        message = str(error)
    results.append([parts, message, sorted(path.name for path in out.parent.iterdir())])
resource.setrlimit(resource.RLIMIT_FSIZE, (whole * 2, resource.RLIM_INFINITY))
write()
print(json.dumps(results))
"""


@pytest.mark.parametrize('kind', ['plain', 'cog', 'uint8'])
def test_a_file_that_cannot_grow(tmp_path, repository, kind):
    """Wherever the writing fails, in GDAL's closing too, which says nothing of it."""
    told = subprocess.run(
        [sys.executable, '-c', LIMITED, str(tmp_path), kind], text=True, check=True,
        capture_output=True, env={**os.environ, 'PYTHONPATH': str(repository)})
    results = json.loads(told.stdout)
    assert len(results) > 10
    for parts, message, left in results:
        assert message is not None, parts
        assert 'map.tif: File too large; ' in message and '\n' not in message
        assert 'run the same command again' in message
        assert left == []


def test_bits_that_turn_are_found(tmp_path, labels, monkeypatch):
    """Also where the file's structure is whole."""
    def damage(file):
        path, = tmp_path.glob('.map.*.tif')
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 4
        path.write_bytes(content)

    monkeypatch.setattr(writing.os, 'fsync', damage)
    with pytest.raises(UserError, match='rows 512 to 1024 are not read as written|cannot write'):
        write_labels(tmp_path / 'map.tif', place(), strips(labels), CLASSES, PALETTE,
                     OutputOptions(compress='none'))
    assert names_in(tmp_path) == []


KILLED = """
import os, signal, sys
from raster.strips import CLASSES, PALETTE, draw_labels, place
from bhvit_seg.raster.writing import OutputOptions, write_labels
labels = draw_labels()
def strips():
    yield 0, labels[:512]
    yield 512, labels[512:1024]
    os.kill(os.getpid(), signal.SIGKILL)
write_labels(sys.argv[1], place(), strips(), CLASSES, PALETTE, OutputOptions(cog=True))
"""


def test_a_killed_writer_leaves_no_map(tmp_path, repository):
    paths = os.pathsep.join([str(repository), str(repository / 'tests')])
    told = subprocess.run([sys.executable, '-c', KILLED, str(tmp_path / 'map.tif')],
                          env={**os.environ, 'PYTHONPATH': paths})
    assert told.returncode == -signal.SIGKILL
    assert names_in(tmp_path) and not (tmp_path / 'map.tif').exists()
    with Journal(tmp_path / 'map.tif', {}) as journal:
        journal.remove()
    assert names_in(tmp_path) == []
