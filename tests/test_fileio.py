from __future__ import annotations

import json
import os

import pytest

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import (
    make_output_folder,
    remove_leftovers,
    write_atomically,
    write_json,
    write_text,
)


def test_writes_into_new_folders(tmp_path):
    path = tmp_path / 'a' / 'b.json'
    write_json(path, {'key': [1, 2]})
    assert json.loads(path.read_text()) == {'key': [1, 2]}
    assert [entry.name for entry in path.parent.iterdir()] == ['b.json']


def test_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / 'scores.txt'
    write_text(path, 'old')
    with pytest.raises(RuntimeError), write_atomically(path) as partial:
        partial.write_text('new, but not wh')
        raise RuntimeError
    assert path.read_text() == 'old'
    assert [entry.name for entry in tmp_path.iterdir()] == ['scores.txt']


def test_nothing_stands_under_the_name_before_the_end(tmp_path):
    path = tmp_path / 'picture.png'
    with write_atomically(path) as partial:
        partial.write_bytes(b'content')
        assert not path.exists()
        assert partial.suffix == '.png' and partial.name.startswith('.')
    assert path.read_bytes() == b'content'


def test_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / 'scores.txt'
    write_text(path, 'old')
    child = os.fork()
    if not child:
        with write_atomically(path) as partial:
            partial.write_text('half')
            os._exit(9)
    os.waitpid(child, 0)
    assert path.read_text() == 'old'
    leftovers = remove_leftovers(tmp_path)
    assert len(leftovers) == 1 and not leftovers[0].exists()
    assert path.read_text() == 'old'


def test_files_get_the_usual_permissions(tmp_path):
    (tmp_path / 'usual').touch()
    write_text(tmp_path / 'ours', '')
    assert (tmp_path / 'ours').stat().st_mode == (tmp_path / 'usual').stat().st_mode


def test_output_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'file.*--out'):
        make_output_folder(tmp_path / 'file' / 'folder', '--out')
