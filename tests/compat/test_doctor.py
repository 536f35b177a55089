from __future__ import annotations

import importlib.metadata
import sys

import pytest

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
        return doctor.examine()

    return pretend


FORK = {'onedl_mmsegmentation': '1.4.2', 'onedl_mmengine': '0.10.12', 'onedl_mmcv': '2.3.6'}
ORIGINAL = {'mmsegmentation': '1.2.2', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


@pytest.mark.parametrize('stack', [FORK, ORIGINAL], ids=['fork', 'original'])
def test_either_stack_is_well(stack, distributions):
    found = distributions(**stack)
    assert not found.problems and not found.remedy
    assert 'all is well' in doctor.render(found)


def test_this_environment_is_well():
    found = doctor.examine()
    assert found.problems == []
    names = [name for name, _, _ in found.rows]
    assert {'python', 'platform', 'torch', 'mmseg'} <= set(names)


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


def test_missing_packages_only_need_installing(distributions):
    missing = {name: 'missing' for name in doctor.MODULES}
    found = distributions(failures=missing)
    assert found.problems == ['not installed: ' + ', '.join(doctor.MODULES)]
    assert found.remedy.startswith('pip install torch==')


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


def test_old_python_is_told(distributions, monkeypatch):
    monkeypatch.setattr(doctor, 'PYTHON_FOR_STACK', (99, 0))
    found = distributions(**FORK)
    assert 'PYTHON=' in found.remedy
