from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from bhvit_seg.compat.torchvision import import_torchvision
import_torchvision()
print('torchvision' in sys.modules, hasattr(sys.modules.get('torchvision'), 'transforms'))
"""


@pytest.fixture
def attempt(tmp_path, repository):
    """A function that imports a stand-in of torchvision, which raises this, in a process."""

    def run(error: str, mmpretrain: bool = True) -> subprocess.CompletedProcess:
        package = tmp_path / 'torchvision'
        package.mkdir()
        (package / '__init__.py').write_text('from torchvision import _meta_registrations\n'
                                             'from . import transforms\n')
        (package / 'transforms.py').touch()
        (package / '_meta_registrations.py').write_text(error)
        if mmpretrain:
            (tmp_path / 'mmpretrain').mkdir()
            (tmp_path / 'mmpretrain' / '__init__.py').touch()
        paths = f'import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(repository)!r}]\n'
        # -I, -S: without what this environment has installed
        return subprocess.run([sys.executable, '-I', '-S', '-c', paths + CODE], capture_output=True,
                              text=True)

    return run


@pytest.mark.parametrize('error', [
    '', "raise RuntimeError('operator torchvision::nms does not exist')"])
def test_it_is_imported_whole_or_without_operators(attempt, error):
    assert attempt(error).stdout.split() == ['True', 'True']


def test_who_does_not_need_it_does_not_wait_for_it(attempt):
    assert attempt('', mmpretrain=False).stdout.split() == ['False', 'False']


def test_what_is_missing_is_left_to_who_needs_it(attempt):
    assert attempt("raise ImportError('libcudart')").stdout.split() == ['False', 'False']


def test_other_errors_are_not_hidden(attempt):
    assert 'RuntimeError: out of memory' in attempt("raise RuntimeError('out of memory')").stderr
