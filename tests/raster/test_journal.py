"""The journal: what is in it is whole, belongs to the run, and to one process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bhvit_seg.errors import UserError
from bhvit_seg.raster.journal import Journal, encode_block

IDENTITY = {'input': {'name': 'a.tif', 'size': 10, 'nodata': float('nan')},
            'bands': (1, 2, 3), 'overlap': 0.25}


def block(number: int) -> bytes:
    return encode_block({'labels': np.full((4, 5), number, np.uint8)})


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / 'map.tif'


def test_a_run_goes_on(out):
    with Journal(out, IDENTITY) as journal:
        assert journal.done == set()
        journal.store(3, block(3))
        journal.store(0, block(0))
        assert journal.folder == out.parent / '.map.tif.work'
    with Journal(out, IDENTITY) as journal:
        assert journal.done == {0, 3}
        assert (journal.load(3)['labels'] == 3).all()
        journal.remove()
    assert list(out.parent.iterdir()) == []
    # What somebody else has put there stays.
    with Journal(out, IDENTITY) as journal:
        (journal.folder / 'diary.txt').write_text('mine')
        journal.remove()
    assert [path.name for path in journal.folder.iterdir()] == ['diary.txt']


def test_another_identity_is_refused(out):
    with Journal(out, IDENTITY) as journal:
        journal.store(0, block(0))
    other = {**IDENTITY, 'input': {**IDENTITY['input'], 'size': 11}, 'model': 'b'}
    with pytest.raises(UserError, match='begun .* differs in input, model: .*--restart'):
        Journal(out, other)
    # Refusing takes nothing away, and does not keep the lock.
    with Journal(out, IDENTITY) as journal:
        assert journal.done == {0}
    with Journal(out, other, restart=True) as journal:
        assert journal.done == set()
        journal.store(1, block(1))
    with Journal(out, other) as journal:
        assert journal.done == {1}


def test_blocks_of_a_missing_or_damaged_identity_do_not_count(out):
    with Journal(out, IDENTITY) as journal:
        journal.store(0, block(0))
    (journal.folder / 'identity.json').unlink()
    with Journal(out, IDENTITY) as journal:
        assert journal.done == set()
        (journal.folder / 'identity.json').write_text('{"input"')
    with pytest.raises(UserError, match='identity.json is damaged.*--restart'):
        Journal(out, IDENTITY)
    Journal(out, IDENTITY, restart=True).close()


def test_damaged_files_do_not_count(out):
    content = block(1)
    damaged = [b'', content[:-1], bytes(len(content)), content[:len(content) // 2],
               content.replace(b'labels', b'labelz', 1)]
    # Bits of the compressed data, behind the header of 30 bytes, the name and 20 bytes more.
    damaged += [content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1:]
                for at in range(62, len(content) - 120)]
    assert len(damaged) > 20
    with Journal(out, IDENTITY) as journal:
        for index in range(len(damaged) + 1):
            journal.store(index, content)
    for index, wrong in enumerate(damaged, 1):
        (journal.folder / f'{index:08d}.npz').write_bytes(wrong)
    with Journal(out, IDENTITY) as journal:
        assert journal.done == {0}
        assert [path.name for path in journal.folder.glob('*.npz')] == ['00000000.npz']


def test_what_killed_writers_left_is_deleted(out):
    mine = ['.map.12.partial.tif', '.map.12-3.partial.tif',
            '.map.12.partial.tif.first.tif', '.map.tif.aux.3.partial.xml',
            '.map.12.partial.tif.aux.xml']
    others = ['.map2.12.partial.tif', '.map.other.12.partial.tif', '.map.12.partial.png',
              'map.tif', 'map.12.partial.tif']
    for name in mine + others:
        (out.parent / name).touch()
    with Journal(out, IDENTITY) as journal:
        (journal.folder / '.00000003.12.partial.npz').touch()
    left = {path.name for path in out.parent.iterdir()}
    assert left == {*others, '.map.tif.work'}
    with Journal(out, IDENTITY) as journal:
        assert {path.name for path in journal.folder.iterdir()} == {'identity.json', 'lock'}


HOLD = """
import sys
from bhvit_seg.raster.journal import Journal
journal = Journal(sys.argv[1], {})
print('held', flush=True)
sys.stdin.read()
"""


def test_one_process_writes_an_output(out, repository):
    with subprocess.Popen([sys.executable, '-c', HOLD, str(out)], text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE,
                          env={**os.environ, 'PYTHONPATH': str(repository)}) as process:
        process.stdout.readline()
        for restart in (False, True):
            with pytest.raises(UserError, match='map.tif is being written by another process'):
                Journal(out, {}, restart)
        # Another output of the same folder is free.
        Journal(out.with_name('other.tif'), {}).close()
        process.kill()
    Journal(out, {}).close()
