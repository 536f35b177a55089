"""What the inputs of a command are: files, folders, patterns and addresses of GDAL."""

from pathlib import Path

import pytest

from bhvit_seg.errors import UserError
from bhvit_seg.inference.inputs import (
    Kind,
    address_name,
    files_behind,
    find_images,
    find_rasters,
    kind_of,
)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return touch(tmp_path / 'flight', 'b/two.TIF', 'a.tif', 'b/one.vrt', 'c.jp2', 'a.tif.aux.xml',
                 'a.tif.msk', 'a.tfw', 'notes.txt', '.hidden.tif', '.out.tif.work/7.tif',
                 'maps/old.tif')


def test_a_folder_is_searched_but_for_the_output(folder):
    assert find_rasters([folder], folder / 'maps') == {
        folder / 'a.tif': Path('a'), folder / 'b/one.vrt': Path('b/one'),
        folder / 'b/two.TIF': Path('b/two'), folder / 'c.jp2': Path('c')}
    found = find_rasters([folder], folder / 'a.tif')
    assert folder / 'a.tif' not in found and found[folder / 'maps/old.tif'] == Path('maps/old')
    # An output around the inputs hides nothing.
    assert len(find_rasters([folder / 'b'], folder)) == 2
    assert len(find_images([str(folder / 'b' / '*')], folder)) == 1


@pytest.mark.parametrize('given', ['.', '**/*'])
def test_an_output_that_is_the_folder_of_the_inputs_is_refused(folder, given):
    (folder.parent / 'link').symlink_to(folder)
    for out in (folder, folder.parent / 'link'):
        with pytest.raises(UserError, match='flight is the folder of the inputs'):
            find_images([str(folder / given)], out)


def test_files_may_have_any_suffix_and_names_that_differ_in_theirs_keep_it(folder, tmp_path):
    touch(folder, 'b/one.tif')
    given = [folder / 'notes.txt', folder / 'b', folder / 'b/one.vrt']  # one of them twice
    assert find_rasters(given, tmp_path / 'out') == {
        folder / 'notes.txt': Path('notes'), folder / 'b/one.tif': Path('one.tif'),
        folder / 'b/one.vrt': Path('one.vrt'), folder / 'b/two.TIF': Path('two')}


def test_the_same_name_twice_is_refused(folder, tmp_path):
    other = touch(tmp_path / 'other', 'a.tif') / 'a.tif'
    with pytest.raises(UserError, match='would both be written as a.tif'):
        find_rasters([folder / 'a.tif', other], tmp_path / 'out')


def test_patterns_and_linked_folders(tmp_path):
    """Seven images: three in the folder, two behind a link, two behind a link within that."""
    touch(tmp_path / 'far', 'd.png', 'e.png')
    touch(tmp_path / 'farther', 'f.png', 'sub/g.png')
    data = touch(tmp_path / 'data', 'a.png', 'b.png', 'deep/c.png')
    (data / 'deep' / 'far').symlink_to(tmp_path / 'far')
    (tmp_path / 'far' / 'on').symlink_to(tmp_path / 'farther', target_is_directory=True)
    names = ['a', 'b', 'deep/c', 'deep/far/d', 'deep/far/e', 'deep/far/on/f', 'deep/far/on/sub/g']

    def found(given):
        return sorted(map(str, find_images([given], tmp_path / 'out').values()))

    assert found(data) == found(f'{data}/**/*.png') == names
    assert found(f'{data}/**/far') == names[3:]
    # Links that lead back, directly and by way of another folder, end.
    (data / 'deep' / 'up').symlink_to(data)
    (tmp_path / 'farther' / 'back').symlink_to(tmp_path / 'far')
    (tmp_path / 'link').symlink_to(data)
    assert found(data) == found(tmp_path / 'link') == names
    assert len(found(f'{tmp_path}/lin*')) == 7
    assert found(f'{data}/d*/*.png') == names[2:3]


@pytest.mark.parametrize('address, name', {
    '/vsizip//data/flight.zip/north/a.tif': 'a.tif',
    '/vsicurl/http://host:8000/tiles/b.tif?token=x/y': 'b.tif',
    'https://host/c.tif': 'c.tif',
    's3://bucket/d.jp2': 'd.jp2',
    'zip:///data/z.zip!e.tif': 'e.tif',
    'GPKG:/data/tiles.gpkg:summer': 'summer',
    'NETCDF:"/data/air.nc":red band': 'red_band',
    '<VRTDataset/>': 'raster',
}.items())
def test_addresses_stay_as_they_are_and_have_a_name(address, name, tmp_path):
    assert kind_of(address) is Kind.ADDRESS
    assert address_name(address) == name
    assert list(find_rasters([address], tmp_path)) == [address]
    with pytest.raises(UserError, match='predict-raster'):
        find_images([address], tmp_path)


def test_the_files_behind_an_address_are_found(tmp_path, monkeypatch):
    touch(tmp_path, 'a,b.zip', 'tiles.gpkg', 'x.tar.gz')
    for address, name in {
            f'/vsizip/{tmp_path}/a,b.zip/deep/in.tif': 'a,b.zip',
            f'/vsizip/{{{tmp_path}/a,b.zip}}/in.tif': 'a,b.zip',
            f'/vsitar/{{{tmp_path}/x.tar.gz}}/in.tif': 'x.tar.gz',
            f'/vsitar//vsigzip/{tmp_path}/x.tar.gz/in.tif': 'x.tar.gz',
            f'/vsisubfile/10_20,{tmp_path}/tiles.gpkg': 'tiles.gpkg',
            f'GPKG:{tmp_path}/tiles.gpkg:first': 'tiles.gpkg',
            f'NETCDF:"{tmp_path}/tiles.gpkg":first': 'tiles.gpkg',
            f'zip://{tmp_path}/a,b.zip!in.tif': 'a,b.zip',
            '/vsicurl/http://host/a.tif': None}.items():
        assert files_behind(address) == ([tmp_path / name] if name else []), address
    monkeypatch.chdir(tmp_path)
    assert files_behind('/vsizip/x.tar.gz/in.tif') == [Path('x.tar.gz')]
    assert files_behind('GPKG:tiles.gpkg:first') == files_behind('tiles.gpkg')
