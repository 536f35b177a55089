import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile

import pytest

import bhvit_seg


def test_packages_are_ours_and_complete(setup_arguments, repository):
    assert setup_arguments['version'] == bhvit_seg.__version__
    assert setup_arguments['install_requires'] == ['filelock', 'numpy']
    packages = setup_arguments['packages']
    assert packages and all(name.split('.')[0] == 'bhvit_seg' for name in packages)
    folders = {str(path.parent.relative_to(repository)).replace('/', '.')
               for path in (repository / 'bhvit_seg').rglob('*.py') if '.mim' not in path.parts}
    assert folders == set(packages), 'a folder without __init__.py is not installed'


def test_extras_and_doctor_name_the_same_distributions(setup_arguments):
    from bhvit_seg.compat.doctor import STACKS

    for stack in STACKS.values():
        for extra in ('mm', 'openmmlab'):
            requirements = setup_arguments['extras_require'][extra]
            assert any(line.startswith(f'{stack[extra]}==') for line in requirements), stack[extra]


def test_model_index_names_files(repository):
    names = re.findall(r'^- (\S+)', (repository / 'model-index.yml').read_text(), re.MULTILINE)
    assert names == sorted(str(path.relative_to(repository))
                           for path in (repository / 'configs').rglob('metafile.yml'))


@pytest.fixture(scope='module')
def sources(repository, tmp_path_factory):
    """A copy of the checkout's files, to build in."""
    folder = tmp_path_factory.mktemp('sources') / 'bhvit_seg'
    folder.mkdir()
    for name in ('.ci', 'benchmarks', 'bhvit_seg', 'configs', 'docs', 'tests', 'tools'):
        shutil.copytree(repository / name, folder / name,
                        ignore=shutil.ignore_patterns('.mim', '__pycache__', '*.so', '*.png'))
    for path in repository.glob('[!.]*'):
        if path.is_file():
            shutil.copy(path, folder)
    return folder


def setup_command(sources, *arguments, fails=False, **environment):
    done = subprocess.run(
        [sys.executable, 'setup.py', '-q', *map(str, arguments)], cwd=sources,
        env={**os.environ, **environment}, capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stderr
    return done


def test_wheel_brings_configs_tools_and_types_and_no_benchmarks(sources, repository, tmp_path):
    setup_command(sources, 'build_py', '--build-lib', tmp_path)
    package = tmp_path / 'bhvit_seg'
    assert [path.name for path in tmp_path.iterdir()] == ['bhvit_seg']
    for name in ('py.typed', 'raster/page.html', 'zoo/index.json'):
        assert (package / name).is_file()
    for name in ('configs', 'tools', 'model-index.yml'):
        files = {path.relative_to(repository) for path in [repository / name, *(
            repository / name).rglob('*')] if path.is_file() and '__pycache__' not in path.parts}
        assert files
        for file in files:
            assert (package / '.mim' / file).read_bytes() == (repository / file).read_bytes()
    assert not list(tmp_path.rglob('*.pyc'))
    # With nothing but these files, a config is found by its name.
    run = subprocess.run([sys.executable, '-S', '-m', 'bhvit_seg', 'configs', '--paths', 'mini'],
                         cwd=tmp_path, env={'PYTHONPATH': str(tmp_path)}, capture_output=True,
                         text=True)
    assert run.stdout.startswith(str(package / '.mim' / 'configs' / 'demo')), run.stderr


def test_failed_compilation_is_told_last_and_noted(sources, tmp_path):
    done = setup_command(sources, 'build_ext', '--build-lib', tmp_path, '--build-temp',
                         tmp_path / 'temp', CC='/bin/false', CXX='/bin/false')
    reason = (tmp_path / 'bhvit_seg' / 'native' / 'engine_failure.txt').read_text().strip()
    assert reason and '\n' not in reason and len(reason) < 100
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert all(line.startswith('***') for line in lines[-4:]) and reason in '\n'.join(lines[-4:])
    assert not list(tmp_path.rglob('_engine*'))


@pytest.mark.parametrize('environment', [
    {'BHVIT_REQUIRE_ENGINE': '1'}, {'_PYTHON_HOST_PLATFORM': sysconfig.get_platform()}])
def test_failed_compilation_ends_a_build_for_others(environment, sources, tmp_path):
    setup_command(sources, 'build_ext', '--build-lib', tmp_path, '--build-temp', tmp_path / 'temp',
                  fails=True, CC='/bin/false', CXX='/bin/false', **environment)


def test_compiler_for_another_processor_ends_a_build(sources, tmp_path):
    target = 'x86_64-linux-gnu' if platform.machine() == 'aarch64' else 'aarch64-linux-gnu'
    compiler = tmp_path / 'cross-g++'
    compiler.write_text(f'#!/bin/sh\necho {target}\n')
    compiler.chmod(0o755)
    done = setup_command(sources, 'build_ext', '--build-lib', tmp_path, '--build-temp',
                         tmp_path / 'temp', fails=True, CC=str(compiler), CXX=str(compiler))
    assert f'{compiler} compiles for {target}' in done.stderr


def test_source_archive_has_what_builds_and_what_tests(sources, repository, tmp_path):
    setup_command(sources, 'sdist', '--dist-dir', tmp_path)
    archive, = tmp_path.iterdir()
    with tarfile.open(archive) as tar:
        names = {name.partition('/')[2] for name in tar.getnames()}
    wanted = {'setup.py', 'pyproject.toml', 'Makefile', 'model-index.yml', '.ci/run'}
    for folder, pattern in (('bhvit_seg/csrc', '*.h'), ('bhvit_seg', '*.py'), ('tests', '*.py'),
                            ('tests/csrc', '*.cc'), ('benchmarks', '*.py'), ('tools', '*'),
                            ('configs', '*.py'), ('docs', '*.md')):
        found = {str(path.relative_to(repository)) for path in (repository / folder).rglob(pattern)
                 if path.is_file() and not {'__pycache__', '.mim'} & set(path.parts)}
        assert found
        wanted |= found
    assert wanted <= names, sorted(wanted - names)
    assert not [name for name in names if name.endswith(('.so', '.pyc'))]
