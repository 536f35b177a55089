from __future__ import annotations

from pathlib import Path

import pytest

from bhvit_seg.errors import UserError
from bhvit_seg.raster.inputs import find_rasters


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ('b/two.TIF', 'a.tif', 'b/one.vrt', 'c.jp2', 'a.tif.aux.xml', 'a.tif.msk', 'a.tfw',
                 'notes.txt', '.hidden.tif', '.out.tif.work/7.tif', 'maps/old.tif'):
        path = tmp_path / 'flight' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / 'flight'


def test_a_folder_is_searched_but_for_the_output(folder):
    assert find_rasters([folder], folder / 'maps') == [
        (folder / 'a.tif', Path('a')), (folder / 'b/one.vrt', Path('b/one')),
        (folder / 'b/two.TIF', Path('b/two')), (folder / 'c.jp2', Path('c'))]
    found = dict(find_rasters([folder], folder / 'a.tif'))
    assert folder / 'a.tif' not in found and found[folder / 'maps/old.tif'] == Path('maps/old')


def test_files_may_have_any_suffix_and_are_listed_once(folder, tmp_path):
    assert find_rasters([folder / 'notes.txt', folder / 'b', folder / 'b/one.vrt'],
                        tmp_path / 'out') == [
        (folder / 'notes.txt', Path('notes')), (folder / 'b/one.vrt', Path('one')),
        (folder / 'b/two.TIF', Path('two'))]


def test_names_that_differ_in_their_suffix_keep_it(folder, tmp_path):
    (folder / 'b/one.tif').touch()
    names = [name for _, name in find_rasters([folder / 'b'], tmp_path / 'out')]
    assert names == [Path('one.tif'), Path('one.vrt'), Path('two')]


def test_the_same_name_twice_is_refused(folder, tmp_path):
    other = tmp_path / 'other' / 'a.tif'
    other.parent.mkdir()
    other.touch()
    with pytest.raises(UserError, match='would both be written as a.tif'):
        find_rasters([folder / 'a.tif', other], tmp_path / 'out')


def test_a_folder_without_rasters_is_refused(tmp_path):
    with pytest.raises(UserError, match='no rasters found in the folder'):
        find_rasters([tmp_path], tmp_path / 'out')
