"""Package metadata: what installs with which extra. Tools' settings are in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


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
    'test': ['pytest>=7', 'hypothesis', 'ruff==0.17.*'],
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
    install_requires=['numpy'],
    extras_require=EXTRAS,
    entry_points={'console_scripts': ['bhvit-seg = bhvit_seg.cli:main']},
    classifiers=[
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    zip_safe=False,
)
