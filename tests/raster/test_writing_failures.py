"""Writing maps on disks that fail, and for programs that fail or are killed."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from raster.strips import CLASSES, PALETTE, draw_labels, names_in, place, strips

from bhvit_seg.errors import UserError
from bhvit_seg.raster import writing
from bhvit_seg.raster.journal import Journal
from bhvit_seg.raster.writing import OutputOptions, write_labels, write_probabilities


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


@pytest.mark.parametrize('kind', ['plain', 'cog', 'uint8'])
def test_a_file_that_cannot_grow(tmp_path, file_limit, kind):
    """Wherever the writing fails, in GDAL's closing too, which says nothing of it."""
    ids = np.random.default_rng(0).integers(0, 3, (700, 600), np.uint8)
    out = tmp_path / 'map.tif'

    def write():
        if kind == 'uint8':
            parts = [(top, strip[None], strip > 1) for top, strip in strips(ids)]
            write_probabilities(out, place(ids.shape), parts, 'a', kind)
        else:
            write_labels(out, place(ids.shape), strips(ids), CLASSES, PALETTE,
                         OutputOptions(cog=kind == 'cog'))

    write()
    whole = out.stat().st_size
    for limit in [*(whole * parts // 100 for parts in (*range(0, 100, 7), 98, 99)), whole - 3]:
        for path in tmp_path.iterdir():
            path.unlink()
        with file_limit(limit), pytest.raises(UserError) as error:
            write()
        assert re.search('cannot write .*map.tif.*run the same command again', str(error.value))
        assert '\n' not in str(error.value) and names_in(tmp_path) == []
    write()
