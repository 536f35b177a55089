"""The benchmark of raster prediction measures what it says, on small rasters."""

import json

from native.segmentors import write_experiment

from benchmarks.raster import main


def test_pipeline(map_model, tmp_path, capsys, sentence):
    assert main(['pipeline', str(map_model()), '--side', '1200', '--out', str(tmp_path)]) == 0
    result = json.loads((tmp_path / 'pipeline.json').read_text())
    assert result['pipeline']['windows'] == 9
    assert result['pipeline']['peak_megabytes'] > 20 < result['copy']['peak_megabytes']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['pipeline.json']
    assert '% of the speed of the copy' in capsys.readouterr().out
    line = sentence(main, 'pipeline', map_model(), '--side', 10**8, '--out', tmp_path)
    assert 'smaller --side' in line


def test_speed(write_raster, tmp_path, capsys):
    from bhvit_seg.native.packing import export_packed

    config, checkpoint = write_experiment(tmp_path)
    export_packed(config, checkpoint, tmp_path / 'model.bhv')
    assert main(['speed', *map(str, (
        write_raster(), tmp_path / 'model.bhv', config, checkpoint)), '--window', '64',
        '--out', str(tmp_path / 'out')]) == 0
    result = json.loads((tmp_path / 'out' / 'speed.json').read_text())
    assert result['packed']['windows'] == result['torch']['windows'] == 15
    assert result['ratio'] > 0 and result['agreement'] > 0.97
    assert 'times as fast as torch' in capsys.readouterr().out
