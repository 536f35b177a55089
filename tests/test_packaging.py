from __future__ import annotations

import re
import subprocess
import sys

import pytest

import bhvit_seg


@pytest.fixture(scope='module')
def setup_arguments(repository):
    """What setup.py hands to setuptools."""
    code = ('import json, setuptools; setuptools.setup = lambda **kw: '
            'print(json.dumps(kw, default=repr)); '
            'exec(open("setup.py").read(), {"__file__": "setup.py", "__name__": "x"})')
    run = subprocess.run([sys.executable, '-c', code], cwd=repository, capture_output=True,
                         text=True, check=True)
    import json
    return json.loads(run.stdout)


def test_version_is_the_package_s(setup_arguments):
    assert setup_arguments['version'] == bhvit_seg.__version__


def test_core_needs_numpy_alone(setup_arguments):
    assert setup_arguments['install_requires'] == ['numpy']


def test_packages_are_ours_and_complete(setup_arguments, repository):
    packages = setup_arguments['packages']
    assert packages and all(name.split('.')[0] == 'bhvit_seg' for name in packages)
    folders = {str(path.parent.relative_to(repository)).replace('/', '.')
               for path in (repository / 'bhvit_seg').rglob('*.py')}
    assert folders == set(packages), 'a folder without __init__.py is not installed'


def test_extras_and_doctor_name_the_same_distributions(setup_arguments):
    from bhvit_seg.compat.doctor import STACKS

    for extra, stack in STACKS.items():
        requirements = setup_arguments['extras_require'][extra]
        for distribution, version in stack.values():
            assert any(re.fullmatch(rf'{distribution}=={re.escape(version)}(\.\*)?', requirement)
                       for requirement in requirements), distribution


def test_every_make_target_is_explained(repository):
    text = (repository / 'Makefile').read_text()
    phony = re.search(r'^\.PHONY: (.*)', text, re.MULTILINE).group(1).split()
    assert {'demo', 'test', 'test-openmmlab'} <= set(phony)
    explained = set(re.findall(r"echo 'make (\S+)", text)) | {'help'}
    assert explained == set(phony)


def test_shell_scripts_are_sound(repository):
    scripts = [*sorted((repository / 'tools').glob('*.sh')), repository / '.ci' / 'run']
    assert len(scripts) >= 3
    for script in scripts:
        subprocess.run(['bash', '-n', str(script)], check=True)
        assert script.stat().st_mode & 0o111, script


def test_model_index_names_files(repository):
    names = re.findall(r'^- (\S+)', (repository / 'model-index.yml').read_text(), re.MULTILINE)
    assert names == sorted(str(path.relative_to(repository))
                           for path in (repository / 'configs').rglob('metafile.yml'))
