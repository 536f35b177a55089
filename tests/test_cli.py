from __future__ import annotations

import subprocess
import sys

import pytest

import bhvit_seg
from bhvit_seg.cli import main


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(['--version'])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == bhvit_seg.__version__


def test_unknown_command_and_option_are_errors(capsys):
    for arguments in (['operate'], ['doctor', '--quick'], []):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2


def test_doctor_finds_this_environment_well(capsys):
    assert main(['doctor']) == 0
    assert 'all is well' in capsys.readouterr().out


def test_doctor_and_help_work_without_the_stack(repository):
    # -S: no site-packages at all, not even NumPy.
    for arguments, status in ((['--help'], 0), (['--version'], 0), (['doctor'], 1)):
        run = subprocess.run(
            [sys.executable, '-S', '-m', 'bhvit_seg.cli', *arguments], cwd=repository,
            env={'PYTHONPATH': str(repository)}, capture_output=True, text=True)
        assert run.returncode == status, run.stderr
        assert not run.stderr
    assert 'pip install torch==' in run.stdout


def test_sample_passes_the_check(tmp_path, capsys, repository):
    folder = tmp_path / 'sample'
    assert main(['make-sample', str(folder), '--train', '3', '--val', '2', '--size', '64']) == 0
    config = repository / 'configs' / '_base_' / 'datasets' / 'rs-lvf_camera.py'
    assert main(['check-dataset', str(config), '--data-root', str(folder)]) == 0
    assert 'class_weight' in capsys.readouterr().out


def test_problems_of_a_dataset_are_status_1(tmp_path, capsys, repository):
    folder = tmp_path / 'sample'
    main(['make-sample', str(folder), '--train', '2', '--val', '1', '--size', '64'])
    removed = sorted((folder / 'annotations' / 'train').iterdir())[0]
    removed.unlink()
    config = repository / 'configs' / '_base_' / 'datasets' / 'rs-lvf_camera.py'
    assert main(['check-dataset', str(config), '--data-root', str(folder)]) == 1
    assert removed.stem in capsys.readouterr().out


def test_missing_data_root_is_one_sentence(tmp_path, capsys, repository):
    config = repository / 'configs' / '_base_' / 'datasets' / 'rs-lvf_camera.py'
    with pytest.raises(SystemExit) as end:
        main(['check-dataset', str(config), '--data-root', str(tmp_path / 'nowhere')])
    assert end.value.code == 2
    assert capsys.readouterr().err.count('\n') == 1
