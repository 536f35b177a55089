"""Rasters on web servers are mapped like files, and little more than their windows is read."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import rasterio

TOOL = 'tools/predict_raster.py'


@pytest.fixture
def serve(tmp_path):
    """A function that serves a folder and returns host and port, and the log of bytes sent."""
    processes = []

    def start(folder, *options):
        log = tmp_path / f'sent{len(processes)}.txt'
        processes.append(subprocess.Popen(
            [sys.executable, Path(__file__).with_name('range_server.py'), folder, log, *options],
            stdout=subprocess.PIPE, text=True))
        return f'127.0.0.1:{processes[-1].stdout.readline().strip()}', log

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def map_labels(map_model, tool, tmp_path):
    def run(address):
        out = tmp_path / 'map.tif'
        assert tool(TOOL)([str(address), str(out), '--packed', str(map_model()), '--overwrite',
                           '--threads', '1', '--max-memory', '32GB']) == 0
        with rasterio.open(out) as dataset:
            return dataset.read(1)

    return run


def test_a_corner_of_a_cog_costs_little_more_than_its_tiles(serve, map_labels, write_raster,
                                                            tmp_path):
    path = write_raster((1536, 1536), driver='COG', tiled=None, blockxsize=None, blockysize=None,
                        blocksize=256)
    with rasterio.open(path) as dataset:
        needed = sum(int(dataset.get_tag_item(f'BLOCK_SIZE_{x}_{y}', 'TIFF', bidx=1))
                     for x in (0, 1) for y in (0, 1))
    host, log = serve(tmp_path)
    corner = 'vrt://{}?srcwin=0,0,512,512'
    labels = map_labels(corner.format(f'/vsicurl/http://{host}/{path.name}'))
    fetched = sum(map(int, log.read_text().split()))
    assert (labels == map_labels(corner.format(path))).all()
    # Parts of 16 KiB, among them the header.
    print(f'{fetched} bytes of {path.stat().st_size}, tiles {needed}')
    assert needed <= fetched <= 1.3 * needed + 2**16 < path.stat().st_size / 4


@pytest.mark.parametrize('address', [
    'http://{host}/bucket/image.tif', '/vsicurl/http://{host}/bucket/image.tif',
    's3://bucket/image.tif', '/vsis3/bucket/image.tif',
    '/vsizip//vsicurl/http://{host}/bucket/flight.zip/a/image.tif',
    '/vsizip/{folder}/bucket/flight.zip/a/image.tif'])
def test_the_map_is_that_of_the_file(address, serve, map_labels, write_raster, tmp_path,
                                     monkeypatch):
    (tmp_path / 'bucket').mkdir()
    path = write_raster((70, 90), name='bucket/image.tif')
    with zipfile.ZipFile(tmp_path / 'bucket' / 'flight.zip', 'w') as archive:
        archive.write(path, 'a/image.tif')
    host, _ = serve(tmp_path)
    for name, value in {'S3_ENDPOINT': host, 'HTTPS': 'NO', 'VIRTUAL_HOSTING': 'FALSE',
                        'NO_SIGN_REQUEST': 'YES'}.items():
        monkeypatch.setenv(f'AWS_{name}', value)
    expected = map_labels(path)
    assert (map_labels(address.format(host=host, folder=tmp_path)) == expected).all()


@pytest.mark.parametrize('name, options, words', [
    ('none.tif', [], ('404', 'address')),
    ('image.tif', ['no-ranges'], ('Range downloading', 'range requests', 'download'))])
def test_what_cannot_be_fetched_is_said(name, options, words, serve, map_model, write_raster, tool,
                                        sentence, tmp_path):
    write_raster((900, 900))  # GDAL keeps what a small file's whole answer holds
    host, _ = serve(tmp_path, *options)
    address = f'http://{host}/{name}'
    line = sentence(tool(TOOL), address, tmp_path / 'out.tif', '--packed', map_model())
    assert address in line and all(word in line for word in words)
