"""Says what is installed, what is missing or does not fit, and what to type: ``bhvit-seg doctor``.

Needs nothing but the standard library, so that it works where everything else is broken.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import bhvit_seg
from bhvit_seg.errors import UserError
from bhvit_seg.extras import engine_failure, install_line, reinstall_line

PYTHON_FOR_STACK = (3, 10)
# By extra: the distributions that provide mmseg, mmengine and mmcv, and the versions they are
# tried with.
STACKS = {
    'mm': {'mmseg': ('onedl-mmsegmentation', '1.4'), 'mmengine': ('onedl-mmengine', '0.10'),
           'mmcv': ('onedl-mmcv', '2.3')},
    'openmmlab': {'mmseg': ('mmsegmentation', '1.2.2'), 'mmengine': ('mmengine', '0.10.7'),
                  'mmcv': ('mmcv', '2.1.0')},
}
# Others that write into the same folders.
SAME_FOLDERS = {'mmcv': ('mmcv-lite', 'mmcv-full', 'onedl-mmcv-lite')}
# By extra: what it is for, and what is imported, in the order in which they need each other.
TASKS = {
    'predict': ('predict --packed', ('cv2', 'PIL')),
    'raster': ('predict-raster --packed, score-raster', ('rasterio', 'filelock')),
    'vector': ('predict-raster --vector', ('pyogrio', 'pyproj', 'shapely', 'scipy', 'skimage')),
    'dask': ('predict-raster --scheduler', ('distributed',)),
    'mm': ('train, test, export, predict --checkpoint',
           ('torch', 'cv2', 'mmengine', 'mmcv', 'mmseg')),
}
CPU_FLAGS = ('avx2', 'avx512f', 'avx512_vpopcntdq', 'asimd', 'neon')


@dataclass
class Task:
    """Something that bhvit_seg does, and whether it can here.

    Attributes:
        name: The commands.
        found: The packages, with versions.
        works: Whether all of them are there and import.
        install: The command that installs what is missing; empty if nothing is.
    """

    name: str
    found: str
    works: bool
    install: str = ''


@dataclass
class Diagnosis:
    """What the doctor found.

    Attributes:
        system: The interpreter and the processor.
        tasks: What works; the engine of packed models first.
        problems: A sentence for each thing that is broken. A package that is not installed is
            none.
        remedy: The command that corrects them; empty if there are none.
    """

    system: str
    tasks: list[Task] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remedy: str = ''


def examine(instruction_sets: Callable[[], list[str]]) -> Diagnosis:
    """Look at the interpreter, the processor, the engine and the packages.

    Args:
        instruction_sets: Returns those that the engine can use here; raises a ``UserError`` where
            the engine is not built.
    """
    flags = ' '.join(cpu_flags()) or 'no vector instructions known'
    found = Diagnosis(f'bhvit_seg {bhvit_seg.__version__}, Python {platform.python_version()}, '
                      f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {flags}')
    engine_remedy = examine_engine(found, instruction_sets)
    installed = {name: owners(name) for name in STACKS['mm']}
    clobbered = [name for name, distributions in installed.items() if len(distributions) > 1]
    stack = 'openmmlab' if any(
        STACKS['openmmlab'][name][0] in distributions
        for name, distributions in installed.items()) and not clobbered else 'mm'
    failures: dict[str, str] = {}
    for extra, (name, modules) in TASKS.items():
        failures.update({module: import_failure(module) for module in modules
                         if module not in failures})
        missing = [module for module in modules if failures[module] == 'missing']
        versions = ', '.join(describe(module, installed.get(module, [])) for module in modules
                             if module not in missing)
        if extra == 'mm' and sys.version_info < PYTHON_FOR_STACK:
            found.tasks.append(Task(name, 'needs Python 3.10 or newer', False))
            continue
        found.tasks.append(Task(
            name, '; '.join(filter(None, [
                versions, missing and f'not installed: {", ".join(missing)}'])),
            not any(failures[module] for module in modules),
            install_line(stack if extra == 'mm' else extra) if missing else ''))
    report_problems(found, installed, clobbered, stack, failures)
    found.remedy = found.remedy or engine_remedy
    return found


def examine_engine(found: Diagnosis, instruction_sets: Callable[[], list[str]]) -> str:
    """Add the engine to the tasks; return the remedy, or '' if it works."""
    name = 'the engine of packed models'
    if import_failure('numpy'):
        found.tasks.append(Task(name, 'NumPy does not import', False))
        found.problems.append('NumPy, which everything needs, is not installed or does not import')
        return 'pip install numpy'
    try:
        found.tasks.append(Task(name, ', '.join(instruction_sets()), True))
        return ''
    except UserError:
        reason = engine_failure()
    found.tasks.append(Task(name, 'not compiled' if reason else 'missing', False))
    found.problems.append(
        f'the engine of packed models could not be compiled when bhvit_seg was installed: {reason}'
        if reason else 'the engine of packed models is not built for this Python')
    compiler = any(map(shutil.which, ('c++', 'g++', 'clang++')))
    return ('' if compiler else 'apt-get install g++ && ') + reinstall_line()


def report_problems(found: Diagnosis, installed: dict[str, list[str]], clobbered: list[str],
                    stack: str, failures: dict[str, str]) -> None:
    """Add the problems with the packages to ``found``, and the remedy."""
    before = len(found.problems)
    for name in clobbered:
        found.problems.append(f'{" and ".join(installed[name])} both provide {name} and overwrite '
                              "each other's files")
    missing = [name for name in installed if failures.get(name) == 'missing']
    if missing and len(missing) < len(installed):
        found.problems.append(f'not installed: {", ".join(missing)}')
    for name, distributions in installed.items():
        wanted, version = STACKS[stack][name]
        if len(distributions) != 1:
            continue
        have = importlib.metadata.version(distributions[0])
        if distributions[0] != wanted:
            found.problems.append(f'{distributions[0]} does not belong with '
                                  f'{STACKS[stack]["mmseg"][0]}, which comes with {wanted}')
        elif have != version and not have.startswith(version + '.'):
            found.problems.append(f'{wanted} is {have}, but {version} is what works here')
    broken = {name: failure for name, failure in failures.items()
              if failure and failure != 'missing'}
    found.problems += [f'{name} does not import: {failure}' for name, failure in broken.items()]
    if len(found.problems) == before:
        return
    if sys.version_info < PYTHON_FOR_STACK:
        found.remedy = 'make install PYTHON=python3.11'
    elif 'libGL' in failures.get('cv2', ''):
        found.remedy = 'apt-get install libgl1   # or: pip install opencv-python-headless'
    elif broken and not set(broken) & {*installed, 'torch', 'cv2'}:
        extra = next(extra for extra, (_, modules) in TASKS.items() if set(modules) & set(broken))
        found.remedy = install_line(extra)
    else:
        wrong = sorted({name for distributions in installed.values() for name in distributions})
        only_missing = found.problems[before:] == [f'not installed: {", ".join(missing)}']
        uninstall = '' if only_missing or not wrong else f'pip uninstall -y {" ".join(wrong)} && '
        found.remedy = uninstall + install_line(stack)


def owners(module: str) -> list[str]:
    """Return the installed distributions that provide a module of the mm stack."""
    names = [stack[module][0] for stack in STACKS.values()] + list(SAME_FOLDERS.get(module, ()))
    return [name for name in names if is_installed(name)]


def is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def import_failure(module: str) -> str:
    """Return why a module does not import: '' if it does, 'missing' if it is not there."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        try:
            importlib.import_module(module)
            if module == 'mmseg':
                # The package itself is empty; this is where it needs the others.
                importlib.import_module('mmseg.models')
        except ModuleNotFoundError as error:
            return 'missing' if error.name == module else f'it needs {error.name}'
        except Exception as error:
            # Whatever a broken package raises is what is to be told.
            return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ''


def describe(module: str, distributions: list[str]) -> str:
    """Return name and version of a module, and for torch the device."""
    if distributions:
        return ', '.join(f'{name} {importlib.metadata.version(name)}' for name in distributions)
    loaded = sys.modules.get(module)
    version = getattr(loaded, '__version__', '')
    if module == 'torch' and version:
        version += f' ({loaded.cuda.get_device_name() if loaded.cuda.is_available() else "no GPU"})'
    return f'{module} {version}'.strip()


def cpu_flags() -> list[str]:
    """Return those instruction sets of the processor that the packed engine could use."""
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        words = set(cpuinfo.read_text(errors='replace').split())
        return [flag for flag in CPU_FLAGS if flag in words]
    return ['neon'] if platform.machine() in ('arm64', 'aarch64') else []


def render(found: Diagnosis) -> str:
    """Lay out a diagnosis for the terminal."""
    width = max(len(task.name) for task in found.tasks)
    encoding = getattr(sys.stdout, 'encoding', None) or ''  # closed: sys.stdout is None
    good, bad = ('✓', '-') if 'utf' in encoding.lower() else ('+', '-')
    lines = [found.system, '']
    for task in found.tasks:
        lines.append(f'{good if task.works else bad} {task.name:<{width}}  {task.found}')
        if task.install:
            lines.append(f'  {"":<{width}}  to add it: {task.install}')
    lines += ['', *(f'problem: {problem}' for problem in found.problems)]
    if not found.problems:
        lines.append('no problem with what is installed')
    if found.remedy:
        lines.append(f'to correct it: {found.remedy}')
    return '\n'.join(lines)
