"""Time of each kind of layer in the engine: ``python -m benchmarks.latency.profile MODEL.bhv``."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bhvit_seg.errors import UserError, command
from bhvit_seg.fileio import write_json
from bhvit_seg.native import processor_limits
from bhvit_seg.native.engine import run
from bhvit_seg.native.speed import count_products, load


@dataclass
class Region:
    """One kind of layer, all blocks together.

    Attributes:
        milliseconds: The least of all rounds.
        binary: Binary products (multiply and accumulate) of real tokens.
        floating: The same of float products.
        floor: Milliseconds that these products take in a loop on registers, on all threads.
    """

    name: str
    milliseconds: float
    binary: float
    floating: float
    floor: float


def profile_packed(packed: str | Path, size: tuple[int, int], threads: int = 1,
                   isa: str | None = None, rounds: int = 20,
                   out: str | Path | None = None) -> list[Region]:
    """Time the engine's regions on a random image, print a table and write it as JSON.

    Args:
        packed: The packed model.
        size: Height and width of the image in pixels.
        threads: How many threads compute.
        isa: The instruction set; the best by default.
        rounds: Each region's time is the least of so many.
        out: A JSON file to write.

    Raises:
        UserError: An argument out of its range, or no packed model.
    """
    if rounds < 1:
        raise UserError(f'--rounds is {rounds}: expected a number from 1')
    engine = load(packed, threads, isa)
    image = np.random.default_rng(0).integers(
        0, 256, (*size, engine.in_channels), dtype=np.uint8)
    best: dict[str, float] = {}
    for _ in range(rounds):
        total: dict[str, float] = {}
        for name, seconds in run(engine.profile, image):
            total[name] = total.get(name, 0) + seconds
        best = {name: min(seconds, best.get(name, math.inf)) for name, seconds in total.items()}
    binary_limit, float_limit = processor_limits(engine.isa)
    counts = count_products(engine.architecture, engine.pool_scales, *size)
    regions = []
    for name, seconds in best.items():
        binary, floating = counts.get(name, (0, 0))
        floor = (binary / binary_limit + floating / float_limit) / threads
        regions.append(Region(name, 1e3 * seconds, binary, floating, 1e3 * floor))
    _print_table(regions, f'{Path(packed).name}, {size[0]}×{size[1]}, '
                 f'{engine.isa}, threads: {threads}; limits of a core: '
                 f'{binary_limit / 1e9:.0f} binary and {float_limit / 1e9:.0f} float GMAC/s')
    if out:
        write_json(out, dict(size=list(size), threads=threads, isa=engine.isa,
                             binary_limit=binary_limit, float_limit=float_limit,
                             regions=[vars(region) for region in regions]))
    return regions


def _print_table(regions: list[Region], title: str) -> None:
    table = Table(title=title)
    table.add_column('region')
    for column in ('ms', 'share %', 'binary GMAC', 'float GMAC', 'floor ms', '% of limit'):
        table.add_column(column, justify='right')
    whole = Region('all', *(sum(getattr(region, field) for region in regions)
                            for field in ('milliseconds', 'binary', 'floating', 'floor')))
    for region in [*sorted(regions, key=lambda region: -region.milliseconds), whole]:
        table.add_row(region.name, f'{region.milliseconds:.2f}',
                      f'{100 * region.milliseconds / whole.milliseconds:.1f}',
                      f'{region.binary / 1e9:.3f}', f'{region.floating / 1e9:.3f}',
                      f'{region.floor:.2f}',
                      f'{100 * region.floor / region.milliseconds:.0f}' if region.floor else '-')
    Console().print(table)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Times each kind of layer of a packed model and compares it with what the '
                    'processor does at best.')
    parser.add_argument('packed', metavar='MODEL.bhv', help='packed model')
    parser.add_argument('--size', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'),
                        help='height and width of the image in pixels (default: 512 512)')
    parser.add_argument('--threads', type=int, default=1, metavar='N', help='default: 1')
    parser.add_argument('--isa', help='instruction set (default: the best)')
    parser.add_argument('--rounds', type=int, default=20, metavar='N',
                        help='times are the least of so many rounds (default: 20)')
    parser.add_argument('--out', metavar='JSON', help='also write the table to this file')
    args = parser.parse_args(argv)
    profile_packed(args.packed, tuple(args.size), args.threads, args.isa, args.rounds, args.out)


if __name__ == '__main__':
    main()
