from __future__ import annotations

import json
import os
import stat

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


def test_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / 'far').mkdir()
    for target in ('far/there.txt', 'far/not yet.txt'):
        link = tmp_path / 'link.txt'
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        write_text(link, 'new')
        assert link.is_symlink() and (tmp_path / target).read_text() == 'new'


@pytest.mark.parametrize('mode', [0o600, 0o664])
def test_replaced_file_leaves_its_permissions(mode, tmp_path):
    path = tmp_path / 'scores.json'
    path.touch()
    path.chmod(mode)
    write_text(path, '{}')
    assert path.stat().st_mode & 0o777 == mode


def test_what_is_no_file_is_written_to(tmp_path):
    pipe = tmp_path / 'pipe.json'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, 'content')
    assert os.read(reader, 100) == b'content'
    os.close(reader)
    write_text(os.devnull, 'content')
    assert stat.S_ISFIFO(pipe.stat().st_mode) and stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert [entry.name for entry in tmp_path.iterdir()] == ['pipe.json']


def test_folders_and_protected_files_are_left_alone(tmp_path, monkeypatch):
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        write_text(tmp_path, '')
    path = tmp_path / 'protected.txt'
    path.write_text('old')
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # root may write everything
    with pytest.raises(PermissionError, match=path.name):
        write_text(path, 'new')
    assert path.read_text() == 'old' and len(list(tmp_path.iterdir())) == 1


def test_two_writers_of_one_process_do_not_meet(tmp_path):
    path = tmp_path / 'x.txt'
    with write_atomically(path) as first, write_atomically(path) as second:
        first.write_text('first')
        second.write_text('second')
        assert first != second
    assert path.read_text() == 'first'


@pytest.mark.parametrize('stem', ['x' * 250, 'ä' * 125])
def test_longest_names_can_be_written(stem, tmp_path):
    write_text(tmp_path / f'{stem}.txt', 'content')
    assert (tmp_path / f'{stem}.txt').read_text() == 'content'


def test_only_leftovers_of_writers_are_removed(tmp_path):
    kept = {'.notes.partial.txt', '.partial', 'x.12.partial.png', '.x.12.partial.tar.gz.txt'}
    for name in (*kept, '.x.12.partial.png', '.x.y.12-3.partial', '.x.12-0.partial.pth'):
        (tmp_path / name).touch()
    assert len(remove_leftovers(tmp_path)) == 3
    assert {path.name for path in tmp_path.iterdir()} == kept
