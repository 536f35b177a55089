"""Package metadata, what installs with which extra, and the build of the engine.

Tools' settings are in pyproject.toml.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

HERE = Path(__file__).resolve().parent
CSRC = Path('bhvit_seg') / 'csrc'

# No -march=native: what is installed runs on every processor of its kind, and each file of
# kernels says which instructions it may use. Fused multiply-adds stand where the source has them.
COMPILE = ['-std=c++17', '-O3', '-fvisibility=hidden', '-ffp-contract=off', '-pthread',
           '-g0', '-Wall', '-Wextra', '-Wno-maybe-uninitialized']
COMPILE_ISA = {
    'avx2.cc': ['-mavx2', '-mfma'],
    'avx512.cc': ['-mavx2', '-mfma', '-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq',
                  '-mavx512vpopcntdq'],
}


class BuildEngine(build_ext):
    """Compiles each source with flags of its own, side by side; a failure leaves the engine out."""

    def build_extension(self, extension: Extension) -> None:
        x86 = platform.machine().lower() in ('x86_64', 'amd64')

        def compile_one(source: str) -> list[str]:
            flags = COMPILE_ISA.get(Path(source).name, []) if x86 else []
            return self.compiler.compile(
                [source], output_dir=self.build_temp, include_dirs=extension.include_dirs,
                extra_postargs=COMPILE + flags, depends=extension.depends)

        try:
            with ThreadPoolExecutor(os.cpu_count()) as executor:
                objects = sum(executor.map(compile_one, extension.sources), [])
            self.compiler.link_shared_object(
                objects, self.get_ext_fullpath(extension.name), target_lang='c++',
                extra_postargs=['-pthread'])
        except (CCompilerError, ExecError, PlatformError, OSError,
                subprocess.SubprocessError) as error:
            print(f'warning: the packed engine could not be compiled ({error}); bhvit_seg installs '
                  'without it, everything else works', file=sys.stderr)


def engine() -> list[Extension]:
    """Return the extension module, or nothing where pybind11 is missing."""
    try:
        import pybind11
    except ImportError:
        print('warning: pybind11 is missing; bhvit_seg installs without the packed engine',
              file=sys.stderr)
        return []
    return [Extension(
        'bhvit_seg.native._engine',
        sources=sorted(str(path.relative_to(HERE)) for path in (HERE / CSRC).rglob('*.cc')),
        depends=sorted(str(path.relative_to(HERE)) for path in (HERE / CSRC).rglob('*.h')),
        include_dirs=[str(CSRC), pybind11.get_include()])]


def read_version() -> str:
    """Return ``__version__`` without importing the package."""
    text = (HERE / 'bhvit_seg' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


def read_readme() -> str:
    readme = HERE / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


# Two sets of distributions provide `mmseg`, `mmengine` and `mmcv`; installing both at once breaks
# either, so neither is a hard requirement. `bhvit-seg doctor` tells them apart.
TRAINING = ['torch>=2.6', 'opencv-python', 'pillow', 'rich']
RASTER = ['rasterio>=1.3', 'rich', 'pyproj']
VECTOR = ['pyogrio', 'pyproj', 'shapely>=2', 'scikit-image', 'scipy']
DASK = ['distributed']
EXTRAS = {
    'mm': [
        *TRAINING,
        'onedl-mmsegmentation==1.4.*',
        'onedl-mmengine==0.10.*',
        'onedl-mmcv==2.3.*',
    ],
    'openmmlab': [
        *TRAINING,
        'mmsegmentation==1.2.2',
        'mmengine==0.10.7',
        'mmcv==2.1.0',
        'ftfy',
        'regex',
    ],
    # `tools/predict.py --packed` on a device that has neither torch nor OpenMMLab's packages.
    'predict': ['opencv-python-headless', 'pillow', 'rich'],
    # `bhvit-seg predict-raster`, its polygons and centre lines, and clusters to spread it over.
    'raster': RASTER,
    'vector': VECTOR,
    'dask': DASK,
    # Pre-training on ImageNet-1K, beside either set; torchvision has to be torch's own release.
    'pretrain': ['onedl-mmpretrain==1.3.*', 'torchvision'],
    'pretrain-openmmlab': ['mmpretrain==1.2.0', 'torchvision'],
    # Other engines to compare with; tried together.
    'benchmark': [
        'onnx>=1.23',
        'onnxruntime>=1.32',
        'openvino==2026.*',
        'nncf==3.*',
        'matplotlib',
    ],
    'test': [
        *RASTER,
        *VECTOR,
        *DASK,
        'pytest>=7',
        'hypothesis',
        'rio-cogeo',
        'ruff==0.17.*',
        'clang-format==23.1.*',
    ],
}
EXTRAS['dev'] = [*EXTRAS['test'], 'pre-commit']

setup(
    name='bhvit_seg',
    version=read_version(),
    description='1-bit vision transformers (BHViT) for semantic segmentation with mmsegmentation',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.9',
    packages=find_packages(include=['bhvit_seg', 'bhvit_seg.*']),
    package_data={'bhvit_seg.raster': ['page.html']},
    install_requires=['numpy'],
    extras_require=EXTRAS,
    entry_points={'console_scripts': ['bhvit-seg = bhvit_seg.cli:main']},
    classifiers=[
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    ext_modules=engine(),
    cmdclass={'build_ext': BuildEngine},
    zip_safe=False,
)
