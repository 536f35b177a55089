import importlib.metadata
import json

import pytest

from bhvit_seg import extras

DECLARED = ['numpy', 'rasterio>=1.3; extra == "raster"', 'rich; extra == "raster"',
            'torch>=2.6; extra == "mm"', 'onedl-mmcv==2.3.*; extra == "mm"']


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Pretend that the package is installed, from ``url``, and no checkout."""

    class Distribution:
        def __init__(self, url):
            self.url = url

        def read_text(self, name):
            return json.dumps({'url': self.url}) if self.url and name == 'direct_url.json' else None

    def pretend(url=''):
        monkeypatch.setattr(extras, 'ROOT', tmp_path)
        monkeypatch.setattr(importlib.metadata, 'requires', lambda name: DECLARED)
        monkeypatch.setattr(importlib.metadata, 'distribution', lambda name: Distribution(url))

    return pretend


def test_checkout_installs_its_extra(repository):
    assert extras.install_line('raster') == f'pip install -e "{repository}[raster]"'
    assert extras.install_line().startswith('pip install torch==')
    assert extras.reinstall_line() == f'pip install -e "{repository}"'


def test_elsewhere_the_packages_of_the_extra_are_named(installed):
    installed()
    assert extras.install_line('raster') == 'pip install "rasterio>=1.3" rich'
    assert extras.install_line('mm') == (
        f'pip install {extras.TORCH} && pip install "onedl-mmcv==2.3.*"')


@pytest.mark.parametrize('url, words', [
    ('file:///home/me/bhvit_seg', '"bhvit_seg @ file:///home/me/bhvit_seg"'),
    ('file:///x/bhvit_seg-0.1.0.tar.gz', 'bhvit_seg-0.1.0.tar.gz'),
    ('file:///x/bhvit_seg-0.1.0-cp311-cp311-linux_x86_64.whl', 'sources of bhvit_seg'),
    ('', 'sources of bhvit_seg')])
def test_engine_is_built_again_from_where_the_sources_are(url, words, installed):
    installed(url)
    assert words in extras.reinstall_line() and '.whl' not in extras.reinstall_line()


@pytest.mark.parametrize('module, extra', [('rasterio', 'raster'), ('skimage.measure', 'vector')])
def test_missing_package_names_its_extra(module, extra):
    sentence = extras.missing_package(module)
    assert module.split('.')[0] in sentence and f'bhvit_seg[{extra}]' in sentence
    assert 'pip install' in sentence


def test_every_package_of_the_table_is_required_by_its_extra(setup_arguments):
    names = {'cv2': 'opencv-python-headless', 'PIL': 'pillow', 'skimage': 'scikit-image',
             'mmengine': 'onedl-mmengine', 'mmcv': 'onedl-mmcv', 'mmseg': 'onedl-mmsegmentation',
             'mmpretrain': 'onedl-mmpretrain', 'dask': 'distributed'}
    for module, extra in extras.EXTRA_OF.items():
        assert any(line.startswith(names.get(module, module.replace('_', '-')))
                   for line in setup_arguments['extras_require'][extra]), module
