"""The C++ tests in ways of their own: under sanitizers, and on emulated ARM of 64 and 32 bits.

    PYTHONPATH=tests python -m csrc.checks {sanitize,neon,armhf}

``make test-sanitize``, ``make test-neon`` and ``make test-armhf`` are these. Models are small and
random; what is built stays in ``build/``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from native.segmentors import build_segmentor

from bhvit_seg.errors import UserError, command
from bhvit_seg.native.export import fold_segmentor
from bhvit_seg.native.file_format import may_be_narrow, write_packed

from .build import REPOSITORY, build

# As small as the format allows, so that thousands of damaged files take minutes.
MICRO = dict(depths=(1, 1, 1, 1), channels=(32, 32, 64, 64), mlp_channels=(64, 32, 64, 128),
             num_heads=(1, 1, 1, 2))
MODELS = {
    'binary': dict(in_channels=4, align_corners=True,
                   backbone=dict(pretrain_img_size=32, downsampling='binary')),
    'uper': dict(head='BinaryUPerHead', backbone=dict(pretrain_img_size=32, window_size=4)),
}
FUZZ_TRIES = 5000  # a model
SANITIZE = ('-fno-sanitize-recover=all', '-fno-omit-frame-pointer', '-g1')
CROSS = {'neon': ('aarch64-linux-gnu-g++', 'qemu-aarch64'),
         'armhf': ('arm-linux-gnueabihf-g++', 'qemu-arm')}  # no vectors: serial alone
EMULATED_TRIES = 500


def write_models(folder: Path) -> list[Path]:
    """Write packed models of both kinds of downsampling, both heads and both precisions."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, options in MODELS.items():
        tensors = fold_segmentor(build_segmentor(MICRO, head_channels=32, **options))
        if name == 'uper':
            tensors = {key: array.astype(np.float16) if may_be_narrow(key) else array
                       for key, array in tensors.items()}
        paths.append(folder / f'{name}.bhv')
        write_packed(paths[-1], tensors, {'name': name})
    return paths


def run(*arguments: str | Path) -> None:
    """Run a program, and end with its status if it fails."""
    print('+', *arguments, flush=True)
    status = subprocess.run([str(argument) for argument in arguments]).returncode
    if status:
        sys.exit(f'error: {Path(arguments[0]).name} ended with status {status}')


def require(*programs: str, packages: str) -> None:
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise UserError(f'{" and ".join(missing)} cannot be found: install it (Debian, Ubuntu: '
                        f'apt-get install {packages})')


def compiled(folder: Path, *programs: str, **options) -> dict[str, Path]:
    print(f'compiling {", ".join(programs)} in {folder}', flush=True)
    try:
        return build(folder, programs, **options)
    except subprocess.CalledProcessError as error:
        sys.exit(f'{error.stderr}\nerror: {error.cmd[-3]} does not compile')


def sanitize(folder: Path) -> None:
    """Kernels, models and damaged files under ASan and UBSan, threads under TSan."""
    require('g++', packages='g++')
    models = write_models(folder)
    programs = compiled(
        folder / 'address', 'kernels_test', 'model_test', 'fuzz_test', compiler='g++', level='-O1',
        options=('-fsanitize=address,undefined', *SANITIZE),
        # UBSan makes the compiler take many minutes over them; serial has the same arithmetic.
        kernel_options=('-fsanitize=address', *SANITIZE))
    run(programs['kernels_test'])
    run(programs['model_test'], folder / 'answers', *models)
    for model in models:
        run(programs['fuzz_test'], model, str(FUZZ_TRIES))
    programs = compiled(folder / 'thread', 'threads_test', compiler='g++', level='-O1',
                        options=('-fsanitize=thread', *SANITIZE))
    run(programs['threads_test'], *models)


def emulate(folder: Path, compiler: str, emulator: str) -> None:
    """Kernels, threads, damaged files and whole models on ARM: equal to serial there and here."""
    require('g++', packages='g++')
    require(compiler, emulator, packages=f'g++-{compiler.removesuffix("-g++")} qemu-user')
    models = write_models(folder)
    here = compiled(folder / 'here', 'model_test', compiler='g++')
    there = compiled(folder / 'there', 'kernels_test', 'self_test_test', 'threads_test',
                     'fuzz_test', 'model_test', compiler=compiler, options=('-static',), x86=False)
    run(emulator, there['kernels_test'])
    run(emulator, there['self_test_test'])
    run(emulator, there['threads_test'], *models)
    for model in models:
        run(emulator, there['fuzz_test'], model, str(EMULATED_TRIES))
    run(here['model_test'], folder / 'answers-here', *models)
    run(emulator, there['model_test'], folder / 'answers-there', *models)
    answers = [(folder / name).read_bytes() for name in ('answers-here', 'answers-there')]
    if answers[0] != answers[1]:
        sys.exit(f'error: the models answer otherwise in {emulator} than here')
    print(f'{len(models)} models answer in {emulator} as here: {len(answers[0])} equal bytes')


@command
def main(argv: Sequence[str] | None = None) -> None:
    ways = {'sanitize': sanitize, **{
        way: partial(emulate, compiler=compiler, emulator=emulator)
        for way, (compiler, emulator) in CROSS.items()}}
    parser = argparse.ArgumentParser(prog='csrc.checks', description=__doc__.splitlines()[0])
    parser.add_argument('way', choices=ways)
    way = parser.parse_args(argv).way
    ways[way](REPOSITORY / 'build' / f'csrc-{way}')


if __name__ == '__main__':
    main()
