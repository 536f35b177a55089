import importlib.metadata

import pytest

from bhvit_seg import extras

DECLARED = ['numpy', 'rasterio>=1.3; extra == "raster"', 'rich; extra == "raster"',
            'torch>=2.6; extra == "mm"', 'onedl-mmcv==2.3.*; extra == "mm"']


def test_checkout_installs_its_extra(repository):
    assert extras.install_line('raster') == f'pip install -e "{repository}[raster]"'
    assert extras.install_line().startswith('pip install torch==')
    assert extras.reinstall_line() == f'pip install -e "{repository}"'


def test_elsewhere_the_packages_of_the_extra_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, 'ROOT', tmp_path)
    monkeypatch.setattr(importlib.metadata, 'requires', lambda name: DECLARED)
    assert extras.install_line('raster') == 'pip install "rasterio>=1.3" rich'
    assert extras.install_line('mm') == (
        f'pip install {extras.TORCH} && pip install "onedl-mmcv==2.3.*"')


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
