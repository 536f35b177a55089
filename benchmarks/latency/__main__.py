"""Times the packed engine and its baselines: ``python -m benchmarks.latency CONFIG``."""

from __future__ import annotations

import argparse

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    from rich.console import Console

    from benchmarks.latency.baselines.baseline import BASELINES
    from benchmarks.latency.report import tables
    from benchmarks.latency.timing import benchmark_latency
    from bhvit_seg.commands.arguments import add_cfg_options

    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.latency',
        description='Times whole segmentors, from an 8-bit image to labels at its size, one image '
                    'at a time: the packed engine on each instruction set of this processor, torch '
                    'and OpenVINO with the same network, and another network. Calls are '
                    'interleaved in one process.',
        epilog='baselines: ' + '; '.join(f'{name} ({baseline.description})'
                                         for name, baseline in BASELINES.items()))
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?',
                        help='its weights (default: random ones, which take as long)')
    parser.add_argument('--packed', metavar='OUT.bhv',
                        help='the packed model of these weights (default: exports it)')
    parser.add_argument('--sizes', type=int, nargs='+', default=[224, 512], metavar='PIXELS',
                        help='sides of square images (default: 224 512)')
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2], metavar='N',
                        help='thread counts (default: 1 2)')
    parser.add_argument('--baselines', nargs='*', metavar='NAME',
                        help='what to time beside the packed engine (default: all)')
    parser.add_argument('--rounds', type=int, default=10,
                        help='rounds of each, of up to five calls (default: 10)')
    parser.add_argument('--seconds', type=float, default=20,
                        help='timed seconds of each in a cell, about (default: 20)')
    parser.add_argument('--serial', action='store_true',
                        help="also time the packed engine's slow reference")
    parser.add_argument('--without-packed', action='store_true', help='time only the baselines')
    parser.add_argument('--out', metavar='DIR', help='write latency.json and latency.png there')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    progress = Console(stderr=True)
    record = benchmark_latency(
        args.config, args.checkpoint, packed=args.packed, sizes=args.sizes, threads=args.threads,
        baselines=args.baselines, rounds=args.rounds, seconds=args.seconds, out=args.out,
        serial=args.serial, without_packed=args.without_packed, cfg_options=args.cfg_options,
        say=lambda line: progress.print(line, highlight=False, soft_wrap=True))
    console = Console()
    for table in tables(record):
        console.print(table)
    console.print(f'{record["processor"]}, {record["cores"]} cores; ' + ', '.join(
        f'{name} {version}' for name, version in record['versions'].items()), soft_wrap=True)


if __name__ == '__main__':
    main()
