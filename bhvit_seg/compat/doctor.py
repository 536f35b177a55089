"""``bhvit-seg doctor``: what is installed, missing or broken; needs only the standard library."""

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
from bhvit_seg.errors import UserError, first_line
from bhvit_seg.extras import engine_failure, install_line, reinstall_line

PYTHON_FOR_STACK = (3, 10)
# By extra: the distributions of mmseg, mmengine and mmcv, and the versions that were tested.
STACKS = {
    'mm': {'mmseg': ('onedl-mmsegmentation', '1.4'), 'mmengine': ('onedl-mmengine', '0.10'),
           'mmcv': ('onedl-mmcv', '2.3')},
    'openmmlab': {'mmseg': ('mmsegmentation', '1.2.2'), 'mmengine': ('mmengine', '0.10.7'),
                  'mmcv': ('mmcv', '2.1.0')},
}
# Other distributions that write into the same folders.
SAME_FOLDERS = {'mmcv': ('mmcv-lite', 'mmcv-full', 'onedl-mmcv-lite')}
# By extra: its commands, and its packages in the order of their dependencies.
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
    """Commands, the packages found for them, whether all import, and what installs the missing."""

    name: str
    found: str
    works: bool
    install: str = ''


@dataclass
class Diagnosis:
    system: str  # the interpreter and the processor
    tasks: list[Task] = field(default_factory=list)  # the engine of packed models first
    problems: list[str] = field(default_factory=list)  # what is broken, not what is not installed
    remedy: str = ''  # the command that corrects them


def examine(instruction_sets: Callable[[], list[str]]) -> Diagnosis:
    """Examine interpreter, processor, engine (by ``instruction_sets``) and packages."""
    flags = ' '.join(cpu_flags()) or 'no vector instructions known'
    found = Diagnosis(f'bhvit_seg {bhvit_seg.__version__}, Python {platform.python_version()}, '
                      f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {flags}')
    engine_remedy = examine_engine(found, instruction_sets)
    # By module the installed distributions that provide it, with their versions.
    installed = {module: versions([stack[module][0] for stack in STACKS.values()]
                                  + list(SAME_FOLDERS.get(module, ()))) for module in STACKS['mm']}
    clobbered = any(len(distributions) > 1 for distributions in installed.values())
    stack = 'openmmlab' if not clobbered and any(
        name in installed[module] for module, (name, _) in STACKS['openmmlab'].items()) else 'mm'
    failures: dict[str, str] = {}
    for extra, (name, modules) in TASKS.items():
        for module in modules:
            if module not in failures:
                failures[module] = import_failure(module)
        missing = [module for module in modules if failures[module] == 'missing']
        if extra == 'mm' and sys.version_info < PYTHON_FOR_STACK:
            found.tasks.append(Task(name, 'needs Python 3.10 or newer', False))
            continue
        there = ', '.join(describe(module, installed.get(module, {})) for module in modules
                          if module not in missing)
        absent = f'not installed: {", ".join(missing)}' if missing else ''
        found.tasks.append(Task(
            name, '; '.join(filter(None, [there, absent])),
            not any(failures[module] for module in modules),
            install_line(stack if extra == 'mm' else extra) if missing else ''))
    found.remedy = report_problems(found.problems, installed, stack, failures) or engine_remedy
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


def report_problems(problems: list[str], installed: dict[str, dict[str, str]], stack: str,
                    failures: dict[str, str]) -> str:
    """Add the problems with the packages; return the remedy, or '' if there are none."""
    before = len(problems)
    problems += [f"{' and '.join(found)} both provide {name} and overwrite each other's files"
                 for name, found in installed.items() if len(found) > 1]
    missing = [name for name in installed if failures.get(name) == 'missing']
    if missing and len(missing) < len(installed):
        problems.append(f'not installed: {", ".join(missing)}')
    for name, found in installed.items():
        if len(found) == 1:
            (have, version), = found.items()
            wanted, tried = STACKS[stack][name]
            if have != wanted:
                problems.append(f'{have} does not belong with {STACKS[stack]["mmseg"][0]}, which '
                                f'comes with {wanted}')
            elif version != tried and not version.startswith(tried + '.'):
                problems.append(f'{wanted} is {version}, but {tried} is what works here')
    broken = {name: failure for name, failure in failures.items() if failure not in ('', 'missing')}
    problems += [f'{name} does not import: {failure}' for name, failure in broken.items()]
    if len(problems) == before:
        return ''
    if sys.version_info < PYTHON_FOR_STACK:
        return 'make install PYTHON=python3.11'
    if 'libGL' in failures.get('cv2', ''):
        return 'apt-get install libgl1   # or: pip install opencv-python-headless'
    if broken and not set(broken) & {*installed, 'torch', 'cv2'}:
        return install_line(next(extra for extra, (_, modules) in TASKS.items()
                                 if set(modules) & set(broken)))
    wrong = sorted({name for found in installed.values() for name in found})
    only_missing = problems[before:] == [f'not installed: {", ".join(missing)}']
    uninstall = '' if only_missing or not wrong else f'pip uninstall -y {" ".join(wrong)} && '
    return uninstall + install_line(stack)


def versions(distributions: list[str]) -> dict[str, str]:
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
            return first_line(error)  # whatever a broken package raises is what is to be told
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
    encoding = getattr(sys.stdout, 'encoding', None) or ''  # closed: sys.stdout is None
    good = '✓' if 'utf' in encoding.lower() else '+'
    lines = [found.system, '']
    for task in found.tasks:
        lines.append(f'{good if task.works else "-"} {task.name:<{width}}  {task.found}')
        if task.install:
            lines.append(f'  {"":<{width}}  to add it: {task.install}')
    lines += ['', *(f'problem: {problem}' for problem in found.problems)]
    if not found.problems:
        lines.append('no problem with what is installed')
    if found.remedy:
        lines.append(f'to correct it: {found.remedy}')
    return '\n'.join(lines)
