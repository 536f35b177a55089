"""The command for rasters: what it writes, and what it says about bad input."""

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.warp

TOOL = 'tools/predict_raster.py'
# The process of the tests holds more by itself than a map's should.
ROOMY = '--max-memory', '32GB'


def labels_of(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_several_rasters_go_into_a_folder(map_model, write_raster, tool, tmp_path,
                                          capsys):
    folder = tmp_path / 'flights'
    (folder / 'west').mkdir(parents=True)
    write_raster((80, 70), name='flights/a.tif')
    write_raster((70, 80), name='flights/west/b.tif', seed=1)
    (folder / 'west' / 'c.tif').write_bytes(b'no raster')
    out = tmp_path / 'maps'
    assert tool(TOOL)([str(folder), str(out), '--packed', str(map_model()), '--threads', '1',
                       '--preview', 'x.png', '--overlap', '0.5', *ROOMY]) == 1
    printed = capsys.readouterr()
    assert 'west/c.tif' in printed.err and printed.err.count('error: ') == 1
    assert labels_of(out / 'a.tif').shape == (80, 70)
    assert labels_of(out / 'west' / 'b.tif').shape == (70, 80)
    for name in ('a.png', 'a.html', 'west/b.png', 'west/b.html'):
        assert (out / name).stat().st_size > 100


def test_polygons_centre_lines_and_page_of_one_raster(map_model, write_raster,
                                                      tool, tmp_path, capsys):
    out = tmp_path / 'map.tif'
    arguments = [str(write_raster()), str(out), '--packed', str(map_model()), '--cog',
                 '--vector', str(tmp_path / 'map.gpkg'), '--centerlines', '--min-pixels', '4',
                 '--preview', str(tmp_path / 'look.png'), '--window', '96', '64', *ROOMY]
    assert tool(TOOL)(arguments) == 0
    layers = {name for name, _ in pyogrio.list_layers(tmp_path / 'map.gpkg')}
    assert layers == {'polygons', 'centerlines'}
    meta, _, _, fields = pyogrio.raw.read(tmp_path / 'map.gpkg', layer='polygons')
    area = dict(zip(meta['fields'], fields))['area_m2'].sum()
    np.testing.assert_allclose(area, 150 * 210 * 0.09, rtol=0.01)
    assert (tmp_path / 'look.html').read_text().count('data:image') >= 2
    # What is there already is not made again, what is missing is.
    (tmp_path / 'look.png').unlink()
    before = out.stat().st_mtime_ns
    assert tool(TOOL)(arguments) == 0
    assert 'is there already' in capsys.readouterr().out
    assert out.stat().st_mtime_ns == before and (tmp_path / 'look.png').exists()


@pytest.mark.parametrize('words, arguments', [
    ('no model is given', []),
    ('--workers is 0', ['--packed', 'MODEL', '--workers', 0]),
    ('--max-memory much', ['--packed', 'MODEL', '--max-memory', 'much']),
    ('--max-memory leaves', ['--packed', 'MODEL', '--max-memory', '20M']),
    ('overlap 1.5', ['--packed', 'MODEL', '--overlap', 1.5]),
    ('--window takes', ['--packed', 'MODEL', '--window', 1, 2, 3]),
    ('--vector', ['--packed', 'MODEL', '--min-area', 3]),
    ('no known suffix', ['--packed', 'MODEL', '--vector', 'a.shp']),
    ('ends in .png', ['--packed', 'MODEL', '--preview', 'a.jpg']),
    ('no class of that name', ['--packed', 'MODEL', '--vector', 'a.fgb', '--classes', 'moon'])])
def test_arguments_that_make_no_sense_are_named(words, arguments, map_model,
                                                write_raster, tool, sentence,
                                                tmp_path):
    given = [map_model() if value == 'MODEL' else value for value in arguments]
    line = sentence(tool(TOOL), write_raster(), tmp_path / 'out.tif', *given)
    assert words in line
    assert not (tmp_path / 'out.tif').exists()


def test_inputs_that_do_not_suit_are_named(map_model, write_raster, tool, sentence,
                                           tmp_path):
    main, out, packed = tool(TOOL), tmp_path / 'out.tif', ('--packed', map_model())
    assert 'no such file' in sentence(main, tmp_path / 'none.tif', out, *packed)
    assert 'give a folder' in sentence(main, write_raster(), write_raster(name='b.tif'), out,
                                       *packed)
    nowhere = write_raster(name='nowhere.tif', crs=None, transform=rasterio.Affine.identity())
    line = sentence(main, nowhere, out, *packed, '--vector', tmp_path / 'v.gpkg', '--min-area', 5)
    assert 'nowhere.tif has no CRS' in line and '--min-pixels' in line
    for name in ('map.png', 'map.gpkg'):
        assert '.tif' in sentence(main, write_raster(), tmp_path / name, *packed)
    (tmp_path / 'file').write_text('')
    line = sentence(main, write_raster(), tmp_path / 'file' / 'out.tif', *packed)
    assert 'cannot write' in line


def test_near_infrared_tagged_as_alpha(map_model, write_raster, tool, tmp_path):
    def night(pixels):
        pixels[3, :40] = 0

    raster = write_raster((70, 60), bands=4, photometric='RGB', alpha='YES', alter=night)
    for options, empty in (((), 40 * 60), (('--no-alpha',), 0)):
        out = tmp_path / f'map{len(options)}.tif'
        assert tool(TOOL)([str(raster), str(out), '--packed', str(map_model()), *options,
                           '--preview', str(out.with_suffix('.png')), *ROOMY]) == 0
        assert (labels_of(out) == 255).sum() == empty
        with rasterio.open(out.with_suffix('.png')) as picture:
            assert (picture.read(4) == 0).sum() == empty


def test_map_at_the_model_s_resolution(map_model, write_raster, tool, sentence, tmp_path, capsys):
    model = str(map_model(ground_sampling_distance=0.6))
    raster, main = write_raster((150, 210)), tool(TOOL)  # 0.3 m a pixel
    own, resampled = tmp_path / 'own.tif', tmp_path / 'resampled.tif'
    assert main([str(raster), str(own), '--model', model, *ROOMY]) == 0
    told = capsys.readouterr().err
    assert ' 0.3 m' in told and ' 0.6 m' in told and told.count('note: ') == 1
    assert main([str(raster), str(resampled), '--model', model, '--resolution', 'model',
                 '--preview', str(tmp_path / 'look.png'), *ROOMY]) == 0
    assert 'note: ' not in capsys.readouterr().err and (tmp_path / 'look.html').exists()
    with rasterio.open(raster) as source, rasterio.open(resampled) as made:
        assert made.shape == (75, 105) and made.crs == source.crs
        assert made.transform == source.transform * rasterio.Affine.scale(2)
    silent = map_model()
    assert 'give metres' in sentence(main, raster, tmp_path / 'x.tif', '--packed', silent,
                                     '--resolution', 'model')
    assert '--resolution far' in sentence(main, raster, tmp_path / 'x.tif', '--packed', silent,
                                          '--resolution', 'far')
