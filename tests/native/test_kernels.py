"""The C++ tests that need no model: kernels of every instruction set, and the thread pool.

``make test-sanitize`` and ``make test-neon`` run them, and more, in ways of their own.
"""

import shutil
import subprocess

import pytest
from csrc.build import build

from bhvit_seg.native import instruction_sets


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
    """The compiled tests by name."""
    compiler = shutil.which('c++') or shutil.which('g++')
    if compiler is None:
        pytest.skip('no C++ compiler: install one (Debian, Ubuntu: apt-get install g++)')
    try:
        return build(tmp_path_factory.mktemp('csrc'),
                     ['kernels_test', 'self_test_test', 'threads_test'], compiler, level='-O1')
    except subprocess.CalledProcessError as error:
        pytest.fail(f'{error.cmd[-3]} does not compile:\n{error.stderr}')


def run(*arguments):
    process = subprocess.run([str(argument) for argument in arguments], capture_output=True,
                             text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_kernels_equal_the_serial_ones_to_the_bit(programs, engine):
    lines = run(programs['kernels_test']).splitlines()
    names = [name for name in instruction_sets() if name != 'serial']
    assert [line.split(':')[0] for line in lines] == names
    assert all(line.endswith(' cases, 0 failures') for line in lines)


def test_self_test_notices_every_broken_kernel(programs):
    assert run(programs['self_test_test']) == '24 broken kernels, 0 failures\n'


def test_threads(programs, packed):
    models = [packed('mini'), packed('uper', head='BinaryUPerHead')]
    assert run(programs['threads_test'], *models) == '0 failures\n'
