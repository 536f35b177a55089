"""Nothing of the user's is replaced by maps and what lies beside them, unless it is asked for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from raster import rasters
from raster.rasters import paint

from bhvit_seg.cli import main as bhvit_seg

ROOMY = '--max-memory', '32GB'


@pytest.fixture
def predict(map_model, tmp_path, monkeypatch):
    """A function that maps with a small model, in the folder of the test."""
    monkeypatch.chdir(tmp_path)

    def run(*args) -> int:
        return bhvit_seg(['predict-raster', *map(str, args), '--packed', str(map_model()),
                          '--threads', '1', *ROOMY])

    return run


@pytest.fixture
def refused(predict, sentence, tmp_path):
    """A function that maps, has to be refused, and may not have changed any file."""

    def run(*args) -> str:
        before = contents(tmp_path)
        line = sentence(lambda given: predict(*given), *args)
        assert contents(tmp_path) == before
        return line

    return run


def contents(folder: Path) -> dict[str, bytes | str]:
    return {str(path.relative_to(folder)): (
        os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else '')
        for path in sorted(folder.rglob('*'))}


def png(folder: Path, name: str, seed: int = 0) -> Path:
    return rasters.write_raster(folder / name, paint((40, 50), 3, seed), driver='PNG')


@pytest.mark.parametrize('overwrite', [[], ['--overwrite']])
def test_no_output_is_an_input(refused, write_raster, tmp_path, overwrite):
    png(tmp_path, 'field.png')
    write_raster((40, 50), name='road_probabilities.tif')
    assert 'is an input' in refused('field.png', 'm.tif', '--preview', 'field.png', *overwrite)
    line = refused('road_probabilities.tif', 'road.tif', '--probabilities', *overwrite)
    assert 'road_probabilities.tif' in line and 'is an input' in line
    rasters.write_raster(
        tmp_path / 'squares.gpkg', paint((64, 64), 3, 0), driver='GPKG', RASTER_TABLE='june',
        crs='EPSG:32632', transform=rasterio.Affine(1, 0, 0, 0, -1, 0), TILE_FORMAT='PNG',
        APPEND_SUBDATASET='YES')
    line = refused(f'GPKG:{tmp_path}/squares.gpkg:june', 'm.tif', '--vector', 'squares.gpkg',
                   *overwrite)
    assert 'squares.gpkg' in line and 'is an input' in line


def test_sources_masks_and_the_model_are_inputs(refused, write_raster, tmp_path, map_model):
    from rasterio.shutil import copy

    tile = write_raster((40, 50), name='tile.tif')
    copy(tile, tmp_path / 'mosaic.vrt', driver='VRT')
    assert 'tile.tif' in refused('mosaic.vrt', 'tile.tif', '--overwrite')
    # GDAL does not name the sources of a source.
    mosaic = (tmp_path / 'mosaic.vrt').read_text()
    (tmp_path / 'outer.vrt').write_text(mosaic.replace('>tile.tif<', '>mosaic.vrt<'))
    assert 'tile.tif' in refused('outer.vrt', 'tile.tif', '--overwrite')
    packed = tmp_path / 'packed.tif'
    shutil.copy(map_model(), packed)
    before = packed.read_bytes()
    with pytest.raises(SystemExit):
        bhvit_seg(['predict-raster', str(tile), str(packed), '--packed', str(packed),
                   '--overwrite', *ROOMY])
    assert packed.read_bytes() == before


@pytest.mark.parametrize('there, options', [
    ('notes.html', ['--preview', 'notes.png']), ('m.tif', []),
    ('m_probabilities.tif.aux.xml', ['--probabilities']),
    ('plan_centerlines.fgb', ['--vector', 'plan.fgb', '--centerlines'])])
def test_files_that_were_not_written_for_the_map_are_kept(there, options, refused, predict,
                                                          write_raster, tmp_path):
    write_raster((40, 50))
    (tmp_path / there).write_text('mine')
    line = refused('image.tif', 'm.tif', *options)
    assert there in line and '--overwrite' in line
    assert predict('image.tif', 'm.tif', *options, '--overwrite') == 0
    assert not (tmp_path / there).exists() or b'mine' != (tmp_path / there).read_bytes()


def test_layers_of_a_geopackage_are_kept(refused, predict, write_raster, tmp_path):
    write_raster((60, 70))
    (tmp_path / 'text.gpkg').write_text('mine')
    assert 'is not a GeoPackage' in refused('image.tif', 'm.tif', '--vector', 'text.gpkg',
                                            '--overwrite')
    point = np.array([bytes.fromhex('0101000000' + '00' * 16)], object)
    for layer in ('wells', 'polygons'):
        pyogrio.raw.write(tmp_path / 'project.gpkg', point, [], [], layer=layer, driver='GPKG',
                          geometry_type='Point', crs='EPSG:32632',
                          append=(tmp_path / 'project.gpkg').exists())
    line = refused('image.tif', 'm.tif', '--vector', 'project.gpkg')
    assert 'project.gpkg is there already' in line and '--overwrite' in line
    assert predict('image.tif', 'm.tif', '--vector', 'project.gpkg', '--overwrite') == 0
    assert len(pyogrio.raw.read(tmp_path / 'project.gpkg', layer='wells')[2]) == 1
    assert pyogrio.read_info(tmp_path / 'project.gpkg', layer='polygons')['geometry_type'] == (
        'Polygon')


def test_a_map_corrected_by_hand_stays_when_probabilities_are_added(predict, write_raster,
                                                                    tmp_path):
    write_raster((60, 70))
    assert predict('image.tif', 'm.tif') == 0
    with rasterio.open('m.tif', 'r+') as dataset:
        dataset.write(np.full((1, 60, 70), 2, np.uint8))
    before = (tmp_path / 'm.tif').read_bytes()
    assert predict('image.tif', 'm.tif', '--probabilities') == 0
    assert (tmp_path / 'm.tif').read_bytes() == before
    with rasterio.open('m_probabilities.tif') as dataset:
        assert dataset.count == 3 and dataset.read().max() > 100
    assert predict('image.tif', 'm.tif', '--probabilities', '--overwrite') == 0
    with rasterio.open('m.tif') as dataset:
        assert len(np.unique(dataset.read())) == 3


def test_outputs_of_one_run_are_different_files(refused, write_raster):
    write_raster((40, 50), name='a.tif')
    write_raster((40, 50), name='a_probabilities.tif', seed=1)
    line = refused('a.tif', 'a_probabilities.tif', 'maps', '--probabilities')
    assert 'maps/a_probabilities.tif would be written twice' in line


def test_a_repeated_command_makes_what_is_missing_and_keeps_what_was_changed(
        predict, write_raster, tmp_path, capsys):
    pytest.importorskip('pyogrio')
    write_raster((60, 70))
    command = ('image.tif', 'm.tif', '--vector', 'v.geojson', '--preview', 'p.png')
    assert predict(*command) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    assert predict(*command) == 0
    assert contents(tmp_path) == before
    assert capsys.readouterr().out.count('is there already') == 4
    # Other options, or edited since: kept as well.
    (tmp_path / 'v.geojson').write_text('edited')
    (tmp_path / 'p.html').unlink()
    assert predict(*command, '--min-pixels', '40') == 0 and (tmp_path / 'p.html').exists()
    assert (tmp_path / 'v.geojson').read_text() == 'edited'
    (tmp_path / 'v.geojson').unlink()
    assert predict(*command, '--min-pixels', '40') == 0
    after = contents(tmp_path)
    assert after['v.geojson'] != before['v.geojson'] and after['m.tif'] == before['m.tif']


def test_addresses_are_mapped_once_and_again(predict, refused, write_raster, tmp_path, capsys):
    write_raster((60, 70), name='inner.tif')
    with zipfile.ZipFile(tmp_path / 'flight.zip', 'w') as archive:
        archive.write(tmp_path / 'inner.tif', 'deep/inner.tif')
    address = f'/vsizip/{tmp_path}/flight.zip/deep/inner.tif'
    assert predict(address, 'm.tif', '--preview', 'p.png') == 0
    assert predict('inner.tif', 'n.tif') == 0
    with rasterio.open('m.tif') as one, rasterio.open('n.tif') as other:
        np.testing.assert_array_equal(one.read(), other.read())
    capsys.readouterr()
    assert predict(address, 'm.tif', '--preview', 'p.png') == 0
    assert 'm.tif is there already' in capsys.readouterr().out
    assert predict(address, 'maps') == 0 and (tmp_path / 'maps' / 'inner.tif').exists()
    (tmp_path / 'flight.tif').symlink_to('flight.zip')
    assert 'flight.zip' in refused(address, 'flight.tif', '--overwrite')


def test_ctrl_c_says_what_is_kept(map_model, write_raster, start_tool, tmp_path):
    """As a terminal sends it: to the workers, too, which end without a word."""
    write_raster((16000, 400), name='large.tif')  # more runs of blocks than workers
    process = start_tool('tools/predict_raster.py', tmp_path / 'large.tif', tmp_path / 'm.tif',
                         '--packed', map_model(), '--threads', '1', '--workers', 2,
                         '--overlap', '0.5')
    limit = time.monotonic() + 240
    while time.monotonic() < limit and process.poll() is None:
        if list(tmp_path.glob('.m.tif.work/[!.]*.npz')):
            break
        time.sleep(0.01)
    children = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True,
                              text=True).stdout.split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    line, = [line for line in err.splitlines() if 'windows/s' not in line]  # of its progress
    assert 'blocks of' in line and 'are kept' in line
    assert not (tmp_path / 'm.tif').exists() and list(tmp_path.glob('.m.tif.work/[!.]*.npz'))
