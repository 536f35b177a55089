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
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import bhvit_seg

PYTHON_FOR_STACK = (3, 10)
TORCH = 'torch==2.13.0'
# By extra: the distributions that provide mmseg, mmengine and mmcv, and the versions they are
# tried with.
STACKS = {
    'mm': {'mmseg': ('onedl-mmsegmentation', '1.4'), 'mmengine': ('onedl-mmengine', '0.10'),
           'mmcv': ('onedl-mmcv', '2.3')},
    'openmmlab': {'mmseg': ('mmsegmentation', '1.2.2'), 'mmengine': ('mmengine', '0.10.7'),
                  'mmcv': ('mmcv', '2.1.0')},
}
# Others that write into the same folders.
RIVALS = {'mmcv': ('mmcv-lite', 'mmcv-full', 'onedl-mmcv-lite')}
# In the order in which they need each other.
MODULES = ('numpy', 'torch', 'cv2', 'mmengine', 'mmcv', 'mmseg')
CPU_FLAGS = ('avx2', 'avx512f', 'avx512_vpopcntdq', 'asimd', 'neon')


@dataclass
class Diagnosis:
    """What the doctor found.

    Attributes:
        rows: Name, value and whether it is all right.
        problems: A sentence each.
        remedy: The command that mends them; empty if there are none.
    """

    rows: list[tuple[str, str, bool]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remedy: str = ''


def install_line(extra: str = 'mm') -> str:
    """Return the command that installs an extra: from the checkout, where this is one."""
    root = Path(bhvit_seg.__file__).resolve().parents[1]
    source = f'-e "{root}[{extra}]"' if (root / 'setup.py').is_file() else f'"bhvit_seg[{extra}]"'
    return f'pip install {TORCH} && pip install {source}'


def examine() -> Diagnosis:
    """Look at the interpreter, the processor and the packages."""
    found = Diagnosis()
    fits = sys.version_info >= PYTHON_FOR_STACK
    found.rows.append(('python', platform.python_version(), fits))
    if not fits:
        found.problems.append('the mm packages need Python 3.10 or newer')
    flags = ' '.join(cpu_flags()) or 'none of interest'
    found.rows.append(('platform', f'{platform.system()} {platform.machine()}, '
                                   f'{os.cpu_count()} cores, {flags}', True))
    found.rows.append(('bhvit_seg', bhvit_seg.__version__, True))

    installed = {name: owners(name) for name in STACKS['mm']}
    clobbered = [name for name, distributions in installed.items() if len(distributions) > 1]
    extra = 'openmmlab' if any(
        STACKS['openmmlab'][name][0] in distributions
        for name, distributions in installed.items()) and not clobbered else 'mm'
    failures = {name: import_failure(name) for name in MODULES}
    for name in MODULES:
        found.rows.append((name, describe(name, installed.get(name, [])), not failures[name]))
    report_problems(found, installed, clobbered, extra, failures)
    return found


def report_problems(found: Diagnosis, installed: dict[str, list[str]], clobbered: list[str],
                    extra: str, failures: dict[str, str]) -> None:
    """Add the problems with the packages to ``found``, and the remedy."""
    for name in clobbered:
        found.problems.append(f'{" and ".join(installed[name])} both provide {name} and overwrite '
                              "each other's files")
    missing = [name for name, failure in failures.items() if failure == 'missing']
    if missing:
        found.problems.append(f'not installed: {", ".join(missing)}')
    for name, distributions in installed.items():
        wanted, version = STACKS[extra][name]
        if len(distributions) != 1:
            continue
        have = importlib.metadata.version(distributions[0])
        if distributions[0] != wanted:
            found.problems.append(f'{distributions[0]} does not belong with '
                                  f'{STACKS[extra]["mmseg"][0]}, which comes with {wanted}')
        elif have != version and not have.startswith(version + '.'):
            found.problems.append(f'{wanted} is {have}, but {version} is what works here')
    for name, failure in failures.items():
        if failure and failure != 'missing':
            found.problems.append(f'{name} does not import: {failure}')
    if not found.problems:
        return
    if sys.version_info < PYTHON_FOR_STACK:
        found.remedy = 'make install PYTHON=python3.11'
    elif 'libGL' in failures['cv2']:
        found.remedy = 'apt-get install libgl1   # or: pip install opencv-python-headless'
    else:
        wrong = sorted({name for distributions in installed.values() for name in distributions})
        only_missing = found.problems == [f'not installed: {", ".join(missing)}']
        uninstall = '' if only_missing or not wrong else f'pip uninstall -y {" ".join(wrong)} && '
        found.remedy = uninstall + install_line(extra)


def owners(module: str) -> list[str]:
    """Return the installed distributions that provide a module of the mm stack."""
    names = [stack[module][0] for stack in STACKS.values()] + list(RIVALS.get(module, ()))
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
    """Return version, origin and, for torch, the device."""
    loaded = sys.modules.get(module)
    version = getattr(loaded, '__version__', None)
    if module not in sys.modules and not distributions:
        return '-'
    if distributions:
        return ', '.join(f'{importlib.metadata.version(name)} ({name})' for name in distributions)
    if module == 'torch' and version:
        cuda = loaded.cuda.get_device_name() if loaded.cuda.is_available() else 'no GPU'
        return f'{version}, {cuda}'
    return str(version or 'unknown version')


def cpu_flags() -> list[str]:
    """Return those instruction sets of the processor that the packed engine could use."""
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        words = set(cpuinfo.read_text(errors='replace').split())
        return [flag for flag in CPU_FLAGS if flag in words]
    return ['neon'] if platform.machine() in ('arm64', 'aarch64') else []


def render(found: Diagnosis) -> str:
    """Lay out a diagnosis for the terminal."""
    width = max(len(name) for name, _, _ in found.rows)
    good, bad = ('✓', '✗') if 'utf' in (sys.stdout.encoding or '').lower() else ('ok', '!!')
    lines = [f'{good if fits else bad:<2} {name:<{width}}  {value}'
             for name, value, fits in found.rows]
    lines.append('')
    if not found.problems:
        lines.append('all is well')
    lines += [f'problem: {problem}' for problem in found.problems]
    if found.remedy:
        lines += ['', f'to mend it:  {found.remedy}']
    return '\n'.join(lines)
