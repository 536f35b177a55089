import json

import numpy as np
import pytest

from bhvit_seg.raster.scoring import score_raster

rasterio = pytest.importorskip('rasterio', reason="needs pip install 'bhvit_seg[raster]'")

NAMES = ('land', 'road', 'water', 'unused')


@pytest.fixture
def main(tool):
    return tool('tools/test_raster.py')


@pytest.fixture
def maps(tmp_path):
    """A predicted map that leaves out its first rows, and labels with two columns of 255."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (2, 70, 90), np.uint8)
    ids[0, :20] = ids[1, :20]
    ids[1, :, :2] = 255
    ids[0, :5] = 255
    for name, values, nodata in zip(('pred.tif', 'label.tif'), ids, (255, None)):
        with rasterio.open(tmp_path / name, 'w', 'GTiff', width=90, height=70, count=1,
                           dtype='uint8', nodata=nodata, crs='EPSG:32750',
                           transform=rasterio.Affine(2, 0, 0, 0, -2, 0)) as dataset:
            dataset.write(values, 1)
            if nodata:
                dataset.update_tags(1, **{f'CLASS_{i}': name for i, name in enumerate(NAMES)})
    return tmp_path / 'pred.tif', tmp_path / 'label.tif'


def test_tables_and_file_say_the_same(maps, main, tmp_path, capsys):
    main([*map(str, maps), '--out', str(tmp_path / 'new' / 'scores.json')])
    lines = capsys.readouterr().out.splitlines()
    written = json.loads((tmp_path / 'new' / 'scores.json').read_text())
    assert written == score_raster(*maps)
    assert lines[0].split() == ['IoU', 'F1', 'Precision', 'Recall']
    rows = [line.split() for line in lines]
    for number, name in enumerate(NAMES):
        scores, counts = (row[1:] for row in rows if row and row[0] == name)
        assert [None if cell == '-' else float(cell) for cell in scores] == pytest.approx(
            list(written['classes'][name].values()), abs=0.005)
        assert list(map(int, counts)) == [*written['confusion'][number],
                                          written['unpredicted'][number]]
    assert np.sum(written['confusion']) + np.sum(written['unpredicted']) + 140 == 70 * 90
    assert lines[-1].startswith('140 pixels without a label') and 'count as wrong' in lines[-1]


def test_options_reach_the_scores(maps, main, tmp_path, capsys):
    main([*map(str, maps), '--out', str(tmp_path / 's.json'), '--classes', 'a', 'b', 'c', 'd',
          '--ignore', '0', '--label-map', '1:3', '255:2', '--ignore-nodata'])
    written = json.loads((tmp_path / 's.json').read_text())
    assert written == score_raster(*maps, list('abcd'), 0, {1: 3, 255: 2}, True)
    assert 'are not either' in capsys.readouterr().out
    assert list(written['classes']) == list('abcd') and written['label_map'] == {'1': 3, '255': 2}


@pytest.mark.parametrize('options, words', [
    (['nowhere.tif', 'LABEL'], 'nowhere.tif (no such file)'),
    (['PRED', 'LABEL', '--label-map', '1-2'], '--label-map 1-2'),
    (['PRED', 'LABEL', '--out', '/'], '--out / is a folder'),
])
def test_bad_input_is_one_sentence(options, words, maps, main, sentence):
    given = dict(zip(('PRED', 'LABEL'), maps))
    assert words in sentence(main, *[given.get(option, option) for option in options])
