from __future__ import annotations

import importlib.metadata
import sys

import pytest

import bhvit_seg.native
from bhvit_seg import extras
from bhvit_seg.commands.doctor import instruction_sets
from bhvit_seg.compat import doctor


@pytest.fixture
def distributions(monkeypatch):
    """Pretend that just these distributions are installed, and that everything imports."""

    def pretend(failures=(), **versions):
        versions = {name.replace('_', '-'): version for name, version in versions.items()}

        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, 'version', version)
        monkeypatch.setattr(doctor, 'import_failure', lambda name: dict(failures).get(name, ''))
        return doctor.examine(instruction_sets)

    return pretend


FORK = {'onedl_mmsegmentation': '1.4.2', 'onedl_mmengine': '0.10.12', 'onedl_mmcv': '2.3.6'}
ORIGINAL = {'mmsegmentation': '1.2.2', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


@pytest.mark.parametrize('stack', [FORK, ORIGINAL], ids=['fork', 'original'])
def test_either_stack_is_well(stack, distributions):
    found = distributions(**stack)
    assert not found.problems and not found.remedy
    assert all(task.works for task in found.tasks if 'engine' not in task.name)


def test_this_environment_is_well(engine):
    found = doctor.examine(instruction_sets)
    assert found.problems == []
    assert 'engine' in found.tasks[0].name and 'serial' in found.tasks[0].found
    training = next(task for task in found.tasks if 'train' in task.name)
    assert training.works and 'torch' in training.found


def test_device_without_torch_has_no_problem(distributions, engine):
    absent = dict.fromkeys(('torch', 'mmengine', 'mmcv', 'mmseg', 'distributed'), 'missing')
    found = distributions(failures=absent)
    assert not found.problems and not found.remedy
    training = next(task for task in found.tasks if 'train' in task.name)
    assert not training.works and 'torch, mmengine, mmcv, mmseg' in training.found
    assert training.install.startswith('pip install torch==')
    assert found.tasks[0].works and found.tasks[1].works


def test_failed_compilation_is_told_with_its_reason(distributions, monkeypatch, tmp_path):
    (tmp_path / 'bhvit_seg' / 'native').mkdir(parents=True)
    (tmp_path / 'bhvit_seg' / 'native' / 'engine_failure.txt').write_text('g++ ended with 7\n')
    monkeypatch.setattr(extras, 'ROOT', tmp_path)
    monkeypatch.setitem(sys.modules, 'bhvit_seg.native._engine', None)
    monkeypatch.delattr(bhvit_seg.native, '_engine', raising=False)
    found = distributions(**FORK)
    assert not found.tasks[0].works
    assert len(found.problems) == 1 and 'g++ ended with 7' in found.problems[0]
    assert '--force-reinstall' in found.remedy


def test_both_stacks_at_once_are_to_be_removed(distributions):
    found = distributions(**FORK, **ORIGINAL)
    assert any('overwrite' in problem for problem in found.problems)
    assert found.remedy.startswith('pip uninstall -y mmcv mmengine mmsegmentation onedl-mmcv')
    assert '[mm]' in found.remedy


def test_mixed_stacks_do_not_belong_together(distributions):
    found = distributions(mmsegmentation='1.2.2', mmengine='0.10.7', onedl_mmcv='2.3.6')
    assert any('does not belong' in problem for problem in found.problems)
    assert '[openmmlab]' in found.remedy


def test_version_that_was_not_tried_is_named(distributions):
    found = distributions(**{**ORIGINAL, 'mmcv': '2.2.0'})
    assert found.problems == ['mmcv is 2.2.0, but 2.1.0 is what works here']


def test_half_a_stack_is_a_problem(distributions, engine):
    found = distributions(failures={'mmseg': 'missing'}, onedl_mmengine='0.10.12',
                          onedl_mmcv='2.3.6')
    assert found.problems == ['not installed: mmseg']
    assert found.remedy.startswith('pip install torch==')


def test_broken_package_of_one_task_names_its_extra(distributions, engine):
    found = distributions(failures={'rasterio': 'libproj.so: no such file'}, **FORK)
    assert found.problems == ['rasterio does not import: libproj.so: no such file']
    assert '[raster]' in found.remedy


def test_without_numpy_nothing_works(distributions):
    found = distributions(failures={'numpy': 'missing'})
    assert len(found.problems) == 1 and found.remedy == 'pip install numpy'


def test_library_of_opencv_is_named(distributions):
    failure = 'libGL.so.1: cannot open shared object file: No such file or directory'
    found = distributions(failures={'cv2': failure}, **FORK)
    assert 'libgl1' in found.remedy and 'headless' in found.remedy


def test_broken_package_is_told_by_its_own_words(tmp_path, monkeypatch):
    (tmp_path / 'broken_package.py').write_text('raise OSError("undefined symbol: at::x")')
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.import_failure('broken_package') == 'undefined symbol: at::x'
    assert doctor.import_failure('no_such_package') == 'missing'
    assert 'broken_package' not in sys.modules


def test_old_python_is_told(distributions, monkeypatch, engine):
    monkeypatch.setattr(doctor, 'PYTHON_FOR_STACK', (99, 0))
    training = distributions().tasks[-1]
    assert not training.works and 'Python 3.10' in training.found
    assert 'PYTHON=' in distributions(failures={'mmcv': 'missing'}).remedy


def test_a_closed_output_is_no_failure(distributions, monkeypatch, engine):
    monkeypatch.setattr(sys, 'stdout', None)
    assert '✓' not in doctor.render(distributions())
