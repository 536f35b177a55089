"""Time of each kind of layer in the engine: ``python -m benchmarks.latency.profile MODEL.bhv``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bhvit_seg.errors import UserError, command
from bhvit_seg.fileio import write_json
from bhvit_seg.native import PackedSegmentor, processor_limits
from bhvit_seg.native.file_format import read_packed

STRIDES = (4, 8, 16, 32)
GROUPS = 4


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


def count_products(tensors: Mapping[str, np.ndarray], height: int,
                   width: int) -> dict[str, tuple[float, float]]:
    """Count the products of each of the engine's regions.

    Args:
        tensors: Of a packed model.
        height, width: Of the image, in pixels.

    Returns:
        Binary and float products by region.
    """
    numbers = tensors['architecture'].tolist()
    in_channels, window, binary_downsampling, uper = numbers[0], *numbers[17:20]
    depths, channels, hidden = numbers[1:5], numbers[5:9], numbers[9:13]
    head, classes = numbers[20:22]
    sizes = [(-(-height // s), -(-width // s)) for s in STRIDES]
    tokens = [h * w for h, w in sizes]
    counts: dict[str, tuple[float, float]] = {}

    def add(region: str, binary: float = 0, floating: float = 0) -> None:
        before = counts.get(region, (0, 0))
        counts[region] = (before[0] + binary, before[1] + floating)

    add('stem', floating=tokens[0] * 16 * in_channels * channels[0])
    for s, (n, c) in enumerate(zip(tokens, channels)):
        if s:
            products = n * 4 * channels[s - 1] * c
            add('downsampling', *((products, 0) if binary_downsampling else (0, products)))
        add('mlp', depths[s] * 2 * n * c * hidden[s], depths[s] * 9 * n * c)
        if s < 2:
            add('msgdc', depths[s] * 3 * 9 * n * c * c // GROUPS)
            continue
        cells = math.prod(-(-side // window) for side in sizes[s])
        add('qkv', depths[s] * 3 * (n + cells) * c * c)
        # queries of every window meet its tokens and all pooled ones; the values in two bit planes
        sides = [[min(window, side - i) for i in range(0, side, window)] for side in sizes[s]]
        pairs = sum((h * w + cells)**2 for h in sides[0] for w in sides[1])
        add('attention', depths[s] * 3 * pairs * c)
        add('output', depths[s] * n * c * c)
    if uper:
        scales = tensors['head.pool_scales'].tolist()
        add('pyramid', sum(scale * scale for scale in scales) * channels[3] * head)
        add('bottleneck', tokens[3] * 9 * (channels[3] + len(scales) * head) * head)
        add('laterals', sum(n * c * head for n, c in zip(tokens[:3], channels)))
        add('fpn', sum(n * 9 * head * head for n in tokens[:3]))
        add('fpn bottleneck', tokens[0] * 9 * 4 * head * head)
        add('classifier', floating=tokens[0] * head * classes)
    else:
        add('head levels', sum(n * c * head for n, c in zip(tokens[1:], channels[1:])))
        add('head fusion', tokens[0] * (4 * head + channels[0]) * head,
            tokens[0] * head * classes)
    return counts


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
    segmentor = PackedSegmentor(packed, threads, isa)
    image = np.random.default_rng(0).integers(
        0, 256, (*size, segmentor.meta['channels']), dtype=np.uint8)
    best: dict[str, float] = {}
    for _ in range(rounds):
        total: dict[str, float] = {}
        for name, seconds in segmentor.profile(image):
            total[name] = total.get(name, 0) + seconds
        best = {name: min(seconds, best.get(name, math.inf)) for name, seconds in total.items()}
    binary_limit, float_limit = processor_limits(segmentor.instruction_set)
    counts = count_products(read_packed(packed).tensors, *size)
    regions = []
    for name, seconds in best.items():
        binary, floating = counts.get(name, (0, 0))
        floor = (binary / binary_limit + floating / float_limit) / threads
        regions.append(Region(name, 1e3 * seconds, binary, floating, 1e3 * floor))
    _print_table(regions, f'{Path(packed).name}, {size[0]}×{size[1]}, '
                 f'{segmentor.instruction_set}, threads: {threads}; limits of a core: '
                 f'{binary_limit / 1e9:.0f} binary and {float_limit / 1e9:.0f} float GMAC/s')
    if out:
        write_json(out, dict(size=list(size), threads=threads, isa=segmentor.instruction_set,
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
