"""Maps read back by rasterio, gdalinfo and rio-cogeo; and on disks that fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from raster.strips import CLASSES, PALETTE, SIZE, draw_labels, names_in, place, strips

import bhvit_seg
from bhvit_seg.errors import UserError
from bhvit_seg.raster import writing
from bhvit_seg.raster.journal import Journal
from bhvit_seg.raster.opening import open_quietly
from bhvit_seg.raster.writing import (
    OutputOptions,
    creation_options,
    write_labels,
    write_probabilities,
)

AFFINE = rasterio.Affine(0.1, 0, 1 / 3, 0, -0.3, 2 / 3)


@pytest.fixture(scope='module')
def labels() -> np.ndarray:
    return draw_labels()


@pytest.fixture(scope='module')
def shares(labels) -> np.ndarray:
    """Probabilities, ``(classes, h, w)`` float32."""
    rng = np.random.default_rng(1)
    scores = np.exp(rng.normal(0, 1, (len(CLASSES), SIZE[0] // 10, SIZE[1] // 10)))
    scores = np.kron(scores, np.ones((1, 10, 10)))
    return (scores / scores.sum(axis=0)).astype(np.float32)


def masked_strips(shares: np.ndarray, valid: np.ndarray | None, rows: int = 512):
    for top, strip in strips(shares, rows):
        yield top, strip, None if valid is None else valid[top:top + rows]


def gdalinfo(path: Path) -> dict:
    if shutil.which('gdalinfo') is None:
        pytest.skip('gdalinfo is not installed: apt-get install gdal-bin')
    told = subprocess.run(['gdalinfo', '-json', str(path)], capture_output=True, text=True)
    assert told.returncode == 0 and 'TIFF' not in told.stderr and 'Warning' not in told.stderr
    return json.loads(told.stdout)


POINTS = [rasterio.control.GroundControlPoint(*numbers) for numbers in (
    (0, 0, 10.1, 20.2, 3), (0, 500, 11, 20, 0), (500, 0, 10, 21.7, 0), (500, 500, 11, 21, 5))]
RPCS = rasterio.rpc.RPC(
    height_off=1.5, height_scale=500, lat_off=40.25, lat_scale=0.5, line_off=650,
    line_scale=650, long_off=-3.5, long_scale=0.25, samp_off=550, samp_scale=550,
    line_num_coeff=[0.5] * 20, line_den_coeff=[1] + [0.25] * 19,
    samp_num_coeff=[0.125] * 20, samp_den_coeff=[1] + [0.75] * 19, err_bias=1, err_rand=0.5)
PLACES = {
    'north-up, pixels not square': place(crs='EPSG:32633', transform=AFFINE),
    'south-up': place(crs='EPSG:3395', transform=rasterio.Affine(0.1, 0, 1 / 3, 0, 0.1, 7)),
    'rotated': place(crs='EPSG:4326',
                     transform=rasterio.Affine(0.0866, -0.15, 1 / 7, 0.05, 0.2598, -1 / 9)),
    'no coordinates': place(),
    'a transform alone': place(transform=AFFINE),
    'a CRS alone': place(crs='EPSG:32633'),
    'control points': place(gcps=(POINTS, rasterio.crs.CRS.from_epsg(4326))),
    'rational polynomials': place(rpcs=RPCS),
    'a local CRS': place(crs='LOCAL_CS["mine",UNIT["metre",1]]', transform=AFFINE),
    'a CRS that GeoTIFF cannot say': place(
        crs='+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 '
            '+to_meter=0.0174532925199433', transform=AFFINE),
}


@pytest.mark.parametrize('name, cog', [
    *((name, False) for name in PLACES), ('rotated', True), ('control points', True),
    ('a CRS that GeoTIFF cannot say', True)])
def test_the_place_is_kept_to_the_bit(tmp_path, labels, name, cog):
    source = PLACES[name]
    out = tmp_path / 'map.tif'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.simplefilter('ignore', PendingDeprecationWarning)
        write_labels(out, source, strips(labels), CLASSES, PALETTE, OutputOptions(cog=cog),
                     {'AREA_OR_POINT': 'Point'})
    assert names_in(tmp_path) == ['map.tif', 'map.tif.aux.xml']
    with open_quietly(out) as dataset:
        assert dataset.shape == SIZE
        assert dataset.crs == source.crs
        assert tuple(dataset.transform) == tuple(source.transform)
        assert dataset.rpcs == source.rpcs
        points, crs = dataset.gcps
        assert ([(p.row, p.col, p.x, p.y, p.z) for p in points], crs) == (
            [(p.row, p.col, p.x, p.y, p.z) for p in source.gcps[0]], source.gcps[1])
    told = gdalinfo(out)
    has_transform = source.transform != rasterio.Affine.identity()
    assert ('geoTransform' in told) == has_transform
    if has_transform:
        # It prints 16 digits.
        assert told['geoTransform'] == pytest.approx(source.transform.to_gdal(), rel=1e-15)


@pytest.mark.parametrize('cog', [False, True])
def test_labels_as_others_read_them(tmp_path, labels, cog):
    out = tmp_path / 'folder' / 'map.tif'
    write_labels(out, PLACES['rotated'], strips(labels), CLASSES, PALETTE,
                 OutputOptions(cog=cog), {'MODEL': 'small'})
    with rasterio.open(out) as dataset:
        assert dataset.count == 1 and dataset.dtypes == ('uint8',)
        np.testing.assert_array_equal(dataset.read(1), labels)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, labels != 255)
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.compression.value == 'DEFLATE'
        assert dataset.overviews(1) == [2, 4]
        assert dataset.tags(1) == {f'CLASS_{i}': name for i, name in enumerate(CLASSES)}
        tags = dataset.tags()
        assert tags['TIFFTAG_SOFTWARE'] == f'bhvit_seg {bhvit_seg.__version__}'
        assert '1 röad' in tags['TIFFTAG_IMAGEDESCRIPTION'] and tags['MODEL'] == 'small'
    told, = gdalinfo(out)['bands']
    assert told['noDataValue'] == 255 and told['colorInterpretation'] == 'Palette'
    assert [overview['size'] for overview in told['overviews']] == [[550, 650], [275, 325]]
    assert told['metadata'][''] == {f'CLASS_{i}': name for i, name in enumerate(CLASSES)}
    entries = told['colorTable']['entries']
    assert entries[:3] == [[*colour, 255] for colour in PALETTE] and entries[255][3] == 0


def test_overviews_hold_every_other_label(tmp_path, labels):
    """None is invented, and lines one pixel wide do not vanish as under a majority."""
    labels = labels.copy()
    labels[:, 400:402] = 2
    write_labels(tmp_path / 'map.tif', place(), strips(labels), CLASSES, PALETTE)
    for number, factor in enumerate((2, 4)):
        with open_quietly(tmp_path / 'map.tif', overview_level=number) as overview:
            ids = overview.read(1)
        rows, columns = (np.arange(side) * factor for side in ids.shape)
        # Nearest may mean any pixel that the overview's pixel covers.
        covered = [labels[np.ix_(np.minimum(rows + i, SIZE[0] - 1),
                                 np.minimum(columns + j, SIZE[1] - 1))]
                   for i in range(factor) for j in range(factor)]
        assert (np.stack(covered) == ids).any(axis=0).all()


@pytest.mark.parametrize('size, levels, compress, cog', [
    ((1, 1), [], 'deflate', True), ((1, 700), [2], 'lzw', False), ((700, 3), [2], 'zstd', True),
    ((512, 512), [], 'none', False), ((513, 512), [2], 'none', True)])
def test_sizes_overviews_and_compressions(tmp_path, size, levels, compress, cog):
    ids = np.random.default_rng(0).integers(0, 3, size, np.uint8)
    for overviews in (True, False):
        write_labels(tmp_path / 'map.tif', place(size), strips(ids), CLASSES, PALETTE,
                     OutputOptions(cog=cog, compress=compress, overviews=overviews))
        with open_quietly(tmp_path / 'map.tif') as dataset:
            np.testing.assert_array_equal(dataset.read(1), ids)
            assert dataset.overviews(1) == (levels if overviews else [])
            found = None if dataset.compression is None else dataset.compression.value.lower()
            assert found == (None if compress == 'none' else compress)


@pytest.mark.parametrize('name, options', [
    ('rotated', OutputOptions(cog=True)), ('no coordinates', OutputOptions(cog=True)),
    ('control points', OutputOptions(cog=True, compress='none', tile=256))])
def test_cloud_optimized_files_are_valid(tmp_path, labels, shares, name, options):
    cogeo = pytest.importorskip('rio_cogeo.cogeo')
    write_labels(tmp_path / 'map.tif', PLACES[name], strips(labels), CLASSES, PALETTE, options)
    for dtype in ('uint8', 'float16'):
        write_probabilities(
            tmp_path / f'{dtype}.tif', PLACES[name],
            masked_strips((255 * shares).astype(dtype), labels != 255), CLASSES, dtype, options)
    for file in ('map', 'uint8', 'float16'):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
            assert cogeo.cog_validate(tmp_path / f'{file}.tif', strict=True, quiet=True) == (
                True, [], [])


@pytest.mark.parametrize('masked, classes', [(True, 3), (False, 1)])
def test_probabilities_in_bytes(tmp_path, labels, shares, masked, classes):
    whole = np.rint(255 * shares[:classes]).astype(np.uint8)
    out = tmp_path / 'shares.tif'
    valid = labels != 255 if masked else None
    write_probabilities(out, PLACES['south-up'], masked_strips(whole, valid), CLASSES[:classes],
                        'uint8', tags={'A': 'b'})
    with rasterio.open(out) as dataset:
        assert dataset.dtypes == ('uint8',) * classes and dataset.nodata is None
        assert dataset.crs == PLACES['south-up'].crs
        assert dataset.transform == PLACES['south-up'].transform
        np.testing.assert_array_equal(dataset.read(), whole)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0,
                                      labels != 255 if masked else labels >= 0)
        assert dataset.descriptions == CLASSES[:classes]
        assert dataset.scales == (1 / 255,) * classes and dataset.offsets == (0,) * classes
        assert dataset.overviews(1) == [2, 4] and dataset.tags()['A'] == 'b'
    band = gdalinfo(out)['bands'][-1]
    assert band['description'] == CLASSES[classes - 1] and 'noDataValue' not in band
    assert band['mask']['flags'] == ['PER_DATASET']
    assert [overview['size'] for overview in band['mask']['overviews']] == [[550, 650],
                                                                           [275, 325]]
    # The mask lies inside.
    assert names_in(tmp_path) == ['shares.tif']


@pytest.mark.parametrize('masked', [True, False])
def test_probabilities_in_half_precision(tmp_path, labels, shares, masked):
    half = shares.astype(np.float16)
    out = tmp_path / 'shares.tif'
    valid = labels != 255 if masked else None
    write_probabilities(out, place(), masked_strips(half, valid), CLASSES, 'float16')
    with open_quietly(out) as dataset:
        found = dataset.read(out_dtype='float32')
        assert np.isnan(dataset.nodata)
        assert dataset.dtypes[0] == 'float16' or (  # GDAL from 3.11 on, and before
            dataset.tags(1, ns='IMAGE_STRUCTURE')['NBITS'] == '16')
    expected = half.astype(np.float32)
    if masked:
        expected[:, labels == 255] = np.nan
    np.testing.assert_array_equal(found, expected)
    band = gdalinfo(out)['bands'][1]
    assert band['description'] == 'röad' and band['noDataValue'] == 'NaN'


def test_a_map_that_stood_there_is_replaced(tmp_path, labels, shares):
    out = tmp_path / 'map.tif'
    write_labels(out, place(), strips(labels), CLASSES, PALETTE)
    write_labels(out, place(), strips(labels), CLASSES[::-1], PALETTE)
    assert (tmp_path / 'map.tif.aux.xml').read_text().count('<Category>') == 3
    # Probabilities have no categories, and must not be shown with those of a file before.
    write_probabilities(out, place(), masked_strips(shares.astype(np.float16), None), CLASSES,
                        'float16')
    assert names_in(tmp_path) == ['map.tif']


@pytest.mark.parametrize(('side', 'magic'), [(40000, 42), (50000, 43)])
def test_files_that_may_pass_4_gb_are_big_tiffs(tmp_path, side, magic):
    """Files without a single tile tell what GDAL chooses with these options."""
    path = tmp_path / 'sparse.tif'
    with open_quietly(path, mode='w', driver='GTiff', height=side, width=side, count=1,
                      dtype='uint8', sparse_ok=True, **creation_options(OutputOptions(), 1)):
        pass
    assert struct.unpack('<2sH', path.read_bytes()[:4]) == (b'II', magic)


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
        assert re.search('cannot write .*map.tif: .* MB are free.*run the same command again',
                         str(error.value))
        assert '\n' not in str(error.value) and names_in(tmp_path) == []
    write()
