import json
import os
import re
import shutil
from types import SimpleNamespace

import pytest

from bhvit_seg.errors import UserError, command
from bhvit_seg.fileio import (
    make_output_folder,
    refuse_inputs,
    remove_leftovers,
    write_atomically,
    write_json,
    write_text,
)


def names_in(folder):
    return [entry.name for entry in folder.iterdir()]


def test_writes_into_new_folders_with_the_usual_permissions(tmp_path):
    path = tmp_path / 'a' / 'b.json'
    write_json(path, {'key': [1, 2]})
    assert json.loads(path.read_text()) == {'key': [1, 2]}
    assert names_in(path.parent) == ['b.json']
    (tmp_path / 'usual').touch()
    assert path.stat().st_mode == (tmp_path / 'usual').stat().st_mode


def test_nothing_stands_under_the_name_before_the_end(tmp_path):
    path = tmp_path / 'picture.png'
    with write_atomically(path) as first, write_atomically(path) as second:
        first.write_text('first')
        second.write_text('second')
        assert first != second and not path.exists()
        assert first.suffix == '.png' and first.name.startswith('.')
    assert path.read_text() == 'first' and names_in(tmp_path) == ['picture.png']


def test_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / 'scores.txt'
    write_text(path, 'old')
    with pytest.raises(RuntimeError), write_atomically(path) as partial:
        partial.write_text('new, but not wh')
        raise RuntimeError
    assert path.read_text() == 'old' and names_in(tmp_path) == ['scores.txt']


def test_a_full_disk_is_told_with_the_file_and_what_is_free(tmp_path, file_limit, sentence,
                                                            monkeypatch):
    path, free = tmp_path / 'new' / 'scores.txt', {tmp_path / 'new': 12_340_000}
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=free[folder]))
    with file_limit(1000):
        said = sentence(command(lambda arguments: write_text(path, 5000 * 'x')))
    assert f'{path}: ' in said and '12.3 MB' in said and names_in(path.parent) == []


def test_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / 'scores.txt'
    write_text(path, 'old')
    child = os.fork()
    if not child:
        with write_atomically(path) as partial:
            partial.write_text('half')
            os._exit(9)
    os.waitpid(child, 0)
    leftovers = remove_leftovers(tmp_path)
    assert len(leftovers) == 1 and path.read_text() == 'old' and names_in(tmp_path) == [path.name]


def test_only_leftovers_of_writers_are_removed(tmp_path):
    kept = {'.notes.partial.txt', '.partial', 'x.12.partial.png', '.x.12.partial.tar.gz.txt'}
    for name in (*kept, '.x.12.partial.png', '.x.y.12-3.partial', '.x.12-0.partial.pth'):
        (tmp_path / name).touch()
    assert len(remove_leftovers(tmp_path)) == 3
    assert set(names_in(tmp_path)) == kept


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


def test_folders_and_protected_files_are_left_alone(protected_folder):
    with pytest.raises(UserError, match=f'{protected_folder} .*--out.*Permission denied'):
        make_output_folder(protected_folder, '--out')
    with pytest.raises(IsADirectoryError, match=protected_folder.name):
        write_text(protected_folder, '')
    with pytest.raises(PermissionError, match='protected.txt'):
        write_text(protected_folder / 'protected.txt', 'new')
    assert names_in(protected_folder) == ['protected.txt']


@pytest.mark.parametrize('make', [
    lambda given, other: str(given), lambda given, other: given.parent / 'sub' / '..' / given.name,
    lambda given, other: other.symlink_to(given) or other,
    lambda given, other: os.link(given, other) or other])
def test_no_input_is_written_by_any_name(tmp_path, make):
    given = tmp_path / 'given.tif'
    given.touch()
    (tmp_path / 'sub').mkdir()
    refuse_inputs([tmp_path / 'new.tif', tmp_path / 'sub'], [given, tmp_path / 'gone.tif'], '--out')
    output = make(given, tmp_path / 'other.png')
    with pytest.raises(UserError, match=rf'{re.escape(str(output))} .*is an input.*another --out'):
        refuse_inputs([tmp_path / 'new.tif', output], [given], '--out')
