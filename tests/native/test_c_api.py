"""The engine as a C library: built and installed by CMake, called from C and by ctypes."""

import ctypes
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from csrc.build import ENGINE, setup_constant
from native.segmentors import picture

import bhvit_seg
from bhvit_seg.native import PackedSegmentor

# pip's cmake lies beside the interpreter
PATHS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
UINT8, FLOAT32 = 0, 1
EXAMPLE = ENGINE / 'examples' / 'label_image.c'
CONSUMER = """cmake_minimum_required(VERSION 3.16)
project(consumer LANGUAGES C)
find_package(bhvit_seg REQUIRED)
add_executable(label_image {example})
target_link_libraries(label_image PRIVATE bhvit_seg::bhvit_seg)
"""


def find(program):
    found = shutil.which(program, path=PATHS)
    if found is None:
        pytest.skip(f'no {program}: install it')
    return found


def run(*arguments, **environment):
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True,
                          env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The folder that the library is installed in."""
    cmake, folder = find('cmake'), tmp_path_factory.mktemp('c_api')
    run(cmake, '-S', ENGINE, '-B', folder / 'build', f'-DCMAKE_INSTALL_PREFIX={folder / "usr"}',
        '-DCMAKE_INSTALL_LIBDIR=lib', '-DCMAKE_BUILD_TYPE=Quick', '-DCMAKE_CXX_FLAGS=-O1')
    run(cmake, '--build', folder / 'build', '--parallel', '2', '--target', 'install')
    return folder / 'usr'


@pytest.fixture(scope='module')
def library(installed):
    library = ctypes.CDLL(str(installed / 'lib' / 'libbhvit_seg.so'))
    for name in ('version', 'error', 'instruction_set', 'meta'):
        getattr(library, f'bhvit_{name}').restype = ctypes.c_char_p
    library.bhvit_load.restype = ctypes.c_void_p
    library.bhvit_free.restype = None
    return library


@pytest.fixture
def load(library):
    models = []

    def load(path, threads=1):
        models.append(ctypes.c_void_p(library.bhvit_load(os.fsencode(path), threads)))
        assert models[-1], library.bhvit_error()
        return models[-1]

    yield load
    for model in models:
        library.bhvit_free(model)


def test_flags_of_kernels_are_those_of_the_extension():
    cmake, flags = ' '.join((ENGINE / 'CMakeLists.txt').read_text().split()), setup_constant(
        'COMPILE_ISA')
    assert flags and '-ffp-contract=off' in cmake
    for name, options in flags.items():
        assert f'kernels/{name} PROPERTIES COMPILE_OPTIONS "{";".join(options)}"' in cmake


def build_by_cmake(installed, folder):
    (folder / 'CMakeLists.txt').write_text(CONSUMER.format(example=EXAMPLE))
    run(find('cmake'), '-S', folder, '-B', folder, f'-DCMAKE_PREFIX_PATH={installed}')
    run(find('cmake'), '--build', folder)
    return folder / 'label_image'


def build_by_pkg_config(installed, folder):
    flags = run(find('pkg-config'), '--cflags', '--libs', 'bhvit_seg',
                PKG_CONFIG_PATH=str(installed / 'lib' / 'pkgconfig'))
    run(find('cc'), EXAMPLE, '-o', folder / 'label_image', *shlex.split(flags),
        f'-Wl,-rpath,{installed / "lib"}')
    return folder / 'label_image'


@pytest.mark.parametrize('build', [build_by_cmake, build_by_pkg_config])
def test_example_labels_as_python_does(build, installed, packed, tmp_path):
    program = build(installed, tmp_path)
    for channels, kind in ((3, 'P6'), (1, 'P5')):
        path = packed(f'c-{channels}', in_channels=channels)
        image = picture((37, 50), channels)
        (tmp_path / 'in.pnm').write_bytes(f'{kind} # wide\n50 37\n255\n'.encode() + image.tobytes())
        text = run(program, path, tmp_path / 'in.pnm', tmp_path / 'out.pgm', 2)
        assert '50 x 37 pixels, 5 classes' in text and 'threads: 2' in text and ' ms' in text
        expected = PackedSegmentor(path).predict(image)
        assert len(np.unique(expected)) > 1
        assert (tmp_path / 'out.pgm').read_bytes() == b'P5\n50 37\n255\n' + expected.tobytes()


@pytest.mark.parametrize('arguments, words', [
    (['none.bhv', 'x.ppm'], 'none.bhv'), (['MODEL', 'x.ppm'], 'x.ppm'),
    (['MODEL', 'grey.pgm'], 'grey.pgm has 1 channels')])
def test_example_says_what_is_wrong(arguments, words, installed, packed, tmp_path):
    (tmp_path / 'grey.pgm').write_bytes(b'P5 4 4 255\n' + bytes(16))
    paths = [packed('mini') if name == 'MODEL' else tmp_path / name for name in arguments]
    done = subprocess.run([installed.parent / 'build' / 'label_image', *paths, tmp_path / 'y.pgm'],
                          capture_output=True, text=True)
    assert done.returncode == 1 and words in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'y.pgm').exists()


def test_model_says_what_it_is(library, load, packed):
    path = packed('mini')
    model, python = load(path, 0), PackedSegmentor(path)
    assert library.bhvit_version().decode() == bhvit_seg.__version__
    assert json.loads(library.bhvit_meta(model)) == python.meta
    assert library.bhvit_instruction_set(model).decode() == python.instruction_set
    assert [getattr(library, f'bhvit_{name}')(model)
            for name in ('channels', 'classes', 'threads')] == [3, 5, python.threads]
    assert library.bhvit_self_test() == 0


@pytest.mark.parametrize('kind, dtype', [(UINT8, np.uint8), (FLOAT32, np.float32)])
def test_scores_and_labels_are_those_of_python(kind, dtype, library, load, packed):
    path = packed('mini')
    image = picture((37, 50)).astype(dtype)
    logits, labels = np.empty((5, 10, 13), np.float32), np.empty((37, 50), np.uint8)
    arguments = load(path), image.ctypes.data_as(ctypes.c_void_p), kind, 37, 50
    assert library.bhvit_logits(*arguments, logits.ctypes.data_as(ctypes.c_void_p)) == 0
    assert library.bhvit_label(*arguments, labels.ctypes.data_as(ctypes.c_void_p)) == 0
    python = PackedSegmentor(path)
    assert np.array_equal(logits, python.logits(image))
    assert np.array_equal(labels, python.predict(image))


def test_failures_are_told_and_nothing_is_thrown(library, load, packed, tmp_path):
    (tmp_path / 'damaged.bhv').write_bytes(packed('mini').read_bytes()[:-1])
    for path, threads, words in (
            (None, 1, 'path is NULL'), (tmp_path / 'none.bhv', 1, 'none.bhv'),
            (tmp_path, 1, 'not a regular file'), (tmp_path / 'damaged.bhv', 1, 'damaged'),
            (packed('mini'), -1, 'threads is -1'), (packed('mini'), 257, 'threads is 257')):
        assert library.bhvit_load(path and os.fsencode(path), threads) is None
        assert words in library.bhvit_error().decode()
    model, image = load(packed('mini')), np.full((8, 8, 3), np.nan, np.float32)
    pixels, labels = image.ctypes.data_as(ctypes.c_void_p), (ctypes.c_uint8 * 64)()
    for arguments, words in (
            ((None, pixels, FLOAT32, 8, 8, labels), 'model is NULL'),
            ((model, None, FLOAT32, 8, 8, labels), 'image is NULL'),
            ((model, pixels, FLOAT32, 8, 8, None), 'labels is NULL'),
            ((model, pixels, 7, 8, 8, labels), 'type is 7'),
            ((model, pixels, FLOAT32, -8, 8, labels), '-8x8'),
            ((model, pixels, UINT8, 1 << 30, 1 << 30, labels), 'memory'),
            ((model, pixels, FLOAT32, 8, 8, labels), 'NaN')):
        assert library.bhvit_label(*arguments) == -1
        assert words in library.bhvit_error().decode()
    assert library.bhvit_classes(None) == -1 and library.bhvit_meta(None) is None
    library.bhvit_free(None)
