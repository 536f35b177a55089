import argparse
import importlib
import shlex
import subprocess
import sys

import pytest

import bhvit_seg
from bhvit_seg.cli import SUMMARIES, main

CONFIG = 'configs/_base_/datasets/rs-lvf_camera.py'


def run(arguments, repository, *options):
    return subprocess.run([sys.executable, *options, '-m', 'bhvit_seg', *arguments],
                          cwd=repository, env={'PYTHONPATH': str(repository)},
                          capture_output=True, text=True)


def test_help_names_every_command_and_each_has_a_file(capsys, repository):
    assert main(['--version']) == 0
    assert capsys.readouterr().out.strip() == bhvit_seg.__version__
    assert main(['--help']) == 0
    printed = capsys.readouterr().out
    assert {'train', 'test', 'predict', 'predict-raster', 'score-raster', 'export', 'convert',
            'check-dataset', 'make-sample', 'complexity', 'doctor', 'demo'} <= set(SUMMARIES)
    for name, summary in SUMMARIES.items():
        assert f'  {name} ' in printed and summary in printed
        assert (repository / 'bhvit_seg' / 'commands' / f'{name.replace("-", "_")}.py').is_file()


@pytest.mark.parametrize('name', SUMMARIES)
def test_examples_in_the_help_of_each_command_are_accepted(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, '--help'])
    assert end.value.code == 0
    examples = capsys.readouterr().out.rpartition('examples:\n')[2].splitlines()
    assert examples
    module = importlib.import_module(f'bhvit_seg.commands.{name.replace("-", "_")}')
    for example in examples:
        program, command, *arguments = shlex.split(example)
        assert (program, command) == ('bhvit-seg', name)
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        parser.parse_args(arguments)


@pytest.mark.parametrize('arguments', [['operate'], ['doctor', '--quick'], []])
def test_unknown_command_and_option_are_errors(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        sys.exit(main(arguments))
    assert end.value.code == 2 and not capsys.readouterr().out


@pytest.mark.parametrize('arguments, meant', [
    (['tran'], 'train'), (['models', 'road-1m'], 'roads-1m'),
    (['predict', 'image.png', '--packd'], '--packed'),
    (['train', 'bhvit-tiny_segformer_1xb4-3k_rslvf-224x224'],
     'bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224')])
def test_a_misspelt_name_is_answered_with_the_nearest(arguments, meant, sentence):
    assert f'{arguments[-1]} ' in (said := sentence(main, *arguments)) and f' {meant}?' in said


@pytest.mark.parametrize('arguments', [[], ['train'], ['predict-raster'], ['complexity']])
def test_help_needs_no_package(arguments, repository):
    # -S: no site-packages at all, not even NumPy.
    done = run([*arguments, '--help'], repository, '-S')
    assert done.returncode == 0 and 'usage: bhvit-seg' in done.stdout and not done.stderr


def test_doctor_finds_this_environment_well_and_one_without_packages_not(capsys, engine,
                                                                         repository):
    assert main(['doctor']) == 0
    printed = capsys.readouterr().out
    assert 'problem: ' not in printed and 'serial' in printed and 'torch' in printed
    done = run(['doctor'], repository, '-S')
    assert done.returncode == 1 and not done.stderr
    assert 'pip install numpy' in done.stdout and 'pip install torch==' in done.stdout


WITHOUT = ('torch', 'mmengine', 'mmcv', 'mmseg', 'rich', 'pandas', 'geopandas')


def test_packed_models_and_rasters_need_no_torch(map_model, write_raster, tmp_path, repository):
    pytest.importorskip('pyogrio')
    image, model, labels = write_raster((70, 60)), map_model(), tmp_path / 'map.tif'
    commands = [['predict', image, '--packed', model, '--out', tmp_path / 'out'],
                ['predict-raster', image, labels, '--packed', model, '--vector',
                 tmp_path / 'map.geojson', '--min-area', '5', '--preview', tmp_path / 'map.png'],
                ['score-raster', labels, labels],
                ['benchmark', model, '--sizes', '32', '--seconds', '0']]
    code = (f'import sys\nsys.modules.update(dict.fromkeys({WITHOUT!r}))\n'
            'from bhvit_seg.cli import main\n'
            'for words in sys.argv[1:]: assert not main(words.split("|"))')
    done = subprocess.run(
        [sys.executable, '-c', code, *('|'.join(map(str, words)) for words in commands)],
        env={'PYTHONPATH': str(repository)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '1 predicted' in done.stdout and 'pixel accuracy' in done.stdout
    assert (tmp_path / 'out' / 'labels' / 'image.png').is_file()
    assert b'"area_m2"' in (tmp_path / 'map.geojson').read_bytes()


def test_sample_passes_the_check_until_a_label_is_missing(tmp_path, capsys, repository, sentence):
    folder, config = tmp_path / 'sample', str(repository / CONFIG)
    assert main(['make-sample', str(folder), '--train', '3', '--val', '2', '--size', '64']) == 0
    assert main(['check-dataset', config, '--data-root', str(folder)]) == 0
    assert 'class_weight' in capsys.readouterr().out
    removed = sorted((folder / 'annotations' / 'train').iterdir())[0]
    removed.unlink()
    assert main(['check-dataset', config, '--data-root', str(folder)]) == 1
    assert removed.stem in capsys.readouterr().out
    assert 'nowhere' in sentence(main, 'check-dataset', config, '--data-root', tmp_path / 'nowhere')
