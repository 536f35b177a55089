import importlib.metadata
import sys

import pytest

import bhvit_seg.native
from bhvit_seg import extras
from bhvit_seg.commands.doctor import check_engine
from bhvit_seg.compat import doctor

FORK = {'onedl-mmsegmentation': '1.4.2', 'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6'}
ORIGINAL = {'mmsegmentation': '1.2.2', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


@pytest.fixture
def examine(monkeypatch):
    """Examine as if just these distributions were installed, and all imported but ``failures``."""

    def pretend(versions, **failures):
        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, 'version', version)
        monkeypatch.setattr(doctor, 'import_failure', lambda name: failures.get(name, ''))
        return doctor.examine(check_engine)

    return pretend


@pytest.mark.parametrize('stack', [FORK, ORIGINAL], ids=['fork', 'original'])
def test_either_stack_is_well(stack, examine, engine):
    found = examine(stack)
    assert not found.problems
    assert all(task.works for task in found.tasks) and 'engine' in found.tasks[0].name


def test_device_without_torch_has_no_problem(examine, engine):
    found = examine({}, **dict.fromkeys(('torch', 'mmengine', 'mmcv', 'mmseg', 'distributed',
                                         'onnxruntime'), 'missing'))
    assert not found.problems
    training = next(task for task in found.tasks if 'train' in task.name)
    assert not training.works and 'torch, mmengine, mmcv, mmseg' in training.found
    assert training.install.startswith('pip install torch==')
    assert found.tasks[0].works and found.tasks[1].works
    onnx = next(task for task in found.tasks if task.name == 'export-onnx')
    assert not onnx.works and onnx.install.startswith('pip install torch==')
    assert onnx.install.endswith('[onnx]"')


def test_failed_compilation_is_told_with_its_reason(examine, monkeypatch, tmp_path):
    (tmp_path / 'bhvit_seg' / 'native').mkdir(parents=True)
    (tmp_path / 'bhvit_seg' / 'native' / 'engine_failure.txt').write_text('g++ ended with 7\n')
    monkeypatch.setattr(extras, 'ROOT', tmp_path)
    monkeypatch.setitem(sys.modules, 'bhvit_seg.native._engine', None)
    monkeypatch.delattr(bhvit_seg.native, '_engine', raising=False)
    found = examine(FORK)
    assert not found.tasks[0].works
    assert len(found.problems) == 1 and 'g++ ended with 7' in found.problems[0]
    assert '--force-reinstall' in found.problems[0]


BROKEN = 'libproj.so: no such file'


@pytest.mark.parametrize('versions, failures, problem, remedy', [
    ({**FORK, **ORIGINAL}, {}, 'mmsegmentation both provide mmseg and overwrite',
     'pip uninstall -y onedl-mmsegmentation mmsegmentation'),
    ({**ORIGINAL, 'mmcv': '2.2.0'}, {}, 'mmcv 2.2.0 is installed, but mmcv 2.1.0', '[openmmlab]'),
    ({'mmsegmentation': '1.2.2', 'mmengine': '0.10.7', 'onedl-mmcv': '2.3.6'}, {},
     'onedl-mmcv 2.3.6 is installed, but mmcv 2.1.0', 'pip uninstall -y onedl-mmcv'),
    (FORK, {'rasterio': BROKEN}, f'rasterio does not import ({BROKEN})', '[raster]'),
    ({}, {'numpy': 'missing'}, 'NumPy', 'pip install numpy'),
    ({}, {'numpy': BROKEN}, BROKEN, 'pip install numpy'),
])
def test_each_problem_is_told_with_its_remedy(versions, failures, problem, remedy, examine, engine):
    found = examine(versions, **failures)
    assert problem in found.problems[0] and remedy in found.problems[0]
    assert len(found.problems) == (3 if len(versions) > 3 else 1)
