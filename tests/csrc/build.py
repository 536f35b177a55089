"""Compiles the engine without its Python bindings, and the C++ tests of it.

Flags are those of ``setup.py``, which is read and not run: this needs no package.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parents[1]
ENGINE = REPOSITORY / 'bhvit_seg' / 'csrc'
PROGRAMS = {
    'kernels_test': ('kernels_test.cc', 'tile_kernels_test.cc', 'map_kernels_test.cc',
                     'product_kernels_test.cc', 'attention_kernels_test.cc'),
    'self_test_test': ('self_test_test.cc',),
    'model_test': ('model_test.cc',),
    'fuzz_test': ('fuzz_test.cc',),
    'threads_test': ('threads_test.cc',),
}
KERNELS = ENGINE / 'kernels'
INTERFACES = ('bindings.cc', 'c_api.cc')


def setup_constant(name: str):
    """Return what ``setup.py`` assigns to a name."""
    tree = ast.parse((REPOSITORY / 'setup.py').read_text(encoding='utf-8'))
    value, = (node.value for node in tree.body if isinstance(node, ast.Assign)
              and getattr(node.targets[0], 'id', None) == name)
    return ast.literal_eval(value)


def build(folder: Path, programs: Sequence[str], compiler: str = 'c++',
          options: Sequence[str] = (), x86: bool = True, level: str = '-O3',
          kernel_options: Sequence[str] | None = None) -> dict[str, Path]:
    """Compile some of :data:`PROGRAMS` in a folder, two files at a time; return paths by name.

    Kernels of vectors get ``kernel_options``, where given, instead of ``options``; the others are
    optimized as installed and not by ``level``. A CalledProcessError has the compiler's words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    common, of_file = setup_constant('COMPILE'), setup_constant('COMPILE_ISA')
    command = shlex.split(compiler)
    engine = [path for path in sorted(ENGINE.rglob('*.cc')) if path.name not in INTERFACES]
    assert engine, ENGINE
    of_program = {name: [TESTS / source for source in PROGRAMS[name]] for name in programs}
    sources = [*engine, *(path for paths in of_program.values() for path in paths)]
    objects = {path: folder / f'{path.parent.name}_{path.stem}.o' for path in sources}

    def compile_one(source: Path) -> None:
        vectors = source.parent == KERNELS and source.name != 'serial.cc'
        keep_level = source.parent == KERNELS and kernel_options is None
        chosen = kernel_options if vectors and kernel_options is not None else options
        flags = [*common, *(of_file.get(source.name, []) if x86 else []),
                 *([] if keep_level else [level]), *chosen]
        _run([*command, *flags, '-I', ENGINE, '-c', source, '-o', objects[source]])

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        # kernels take longest
        list(pool.map(compile_one, sorted(sources, key=lambda path: path.parent != KERNELS)))
    built = {}
    for name, paths in of_program.items():
        built[name] = folder / name
        parts = [objects[path] for path in (*paths, *engine)]
        _run([*command, *options, '-pthread', *parts, '-o', built[name]])
    return built


def _run(command: Sequence) -> None:
    subprocess.run([str(part) for part in command], check=True, text=True,
                   stderr=subprocess.PIPE)
