"""What a skip is where CI=true."""

import os
import subprocess
import sys

import pytest

TESTS = """
import pytest
def test_program(): pytest.skip('gdalinfo is not installed')
def test_package(): pytest.importorskip('no_such_package')
def test_gpu(): pytest.skip('needs a GPU')
@pytest.mark.skipif(True, reason='no real data at /x')
def test_data(): pass
@pytest.mark.xfail(run=False)
def test_known(): pass
"""


@pytest.mark.parametrize('ci, outcome', [('true', '2 failed, 2 skipped, 1 xfailed, 1 error'),
                                         ('', '5 skipped, 1 xfailed')])
def test_skips_for_want_of_something_installable_fail(ci, outcome, tmp_path, repository):
    (tmp_path / 'conftest.py').write_text((repository / 'tests' / 'conftest.py').read_text())
    (tmp_path / 'test_a.py').write_text(TESTS)
    (tmp_path / 'test_b.py').write_text(
        "import pytest\npytest.importorskip('no_such_package')\ndef test_it(): pass\n")
    run = subprocess.run([sys.executable, '-m', 'pytest', '-q',
                          '--continue-on-collection-errors', str(tmp_path)], cwd=tmp_path,
                         env={**os.environ, 'CI': ci}, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1].startswith(outcome), run.stdout
