import subprocess
import sys

import pytest

CODE = """
import sys
sys.path[:0] = {paths}
from bhvit_seg.compat.torchvision import import_torchvision
import_torchvision()
print('torchvision' in sys.modules, hasattr(sys.modules.get('torchvision'), 'transforms'))
"""


@pytest.mark.parametrize('error, mmpretrain, expected', [
    ('', True, 'True True'),
    ("raise RuntimeError('operator torchvision::nms does not exist')", True, 'True True'),
    ('', False, 'False False'),  # who does not need it does not wait for it
    ("raise ImportError('libcudart')", True, 'False False'),  # told by who needs it
    ("raise RuntimeError('out of memory')", True, 'RuntimeError: out of memory'),
])
def test_it_is_imported_whole_or_without_operators(error, mmpretrain, expected, tmp_path,
                                                   repository):
    package = tmp_path / 'torchvision'
    package.mkdir()
    (package / '__init__.py').write_text('from torchvision import _meta_registrations\n'
                                         'from . import transforms\n')
    (package / 'transforms.py').touch()
    (package / '_meta_registrations.py').write_text(error)
    if mmpretrain:
        (tmp_path / 'mmpretrain').mkdir()
        (tmp_path / 'mmpretrain' / '__init__.py').touch()
    # -I, -S: without what this environment has installed
    run = subprocess.run([sys.executable, '-I', '-S', '-c', CODE.format(
        paths=[str(tmp_path), str(repository)])], capture_output=True, text=True)
    assert (run.stdout or run.stderr).strip().endswith(expected)
