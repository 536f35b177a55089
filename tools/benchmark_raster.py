"""Times raster prediction: ``python tools/benchmark_raster.py pipeline|speed ...``."""

from __future__ import annotations

import argparse
import sys

from bhvit_seg.errors import command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Times the mapping of rasters.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    pipeline = commands.add_parser(
        'pipeline', help='a generated raster by a model that costs nothing, against a plain copy')
    pipeline.add_argument('packed', metavar='BHV', help='packed model, for its classes')
    pipeline.add_argument('--side', type=int, default=40000, metavar='PIXELS',
                          help='rows and columns of the raster (default: 40000)')
    pipeline.add_argument('--max-memory', default='1400MB', metavar='SIZE',
                          help='limit of the mapping (default: 1400MB)')
    speed = commands.add_parser(
        'speed', help='a raster from bits, against the same network in torch')
    speed.add_argument('raster', metavar='RASTER', help='raster to map')
    speed.add_argument('packed', metavar='BHV', help='packed model')
    speed.add_argument('config', help='config it was exported from')
    speed.add_argument('checkpoint', help='checkpoint it was exported from')
    speed.add_argument('--threads', type=int, default=1, metavar='N',
                       help='threads of each (default: 1)')
    speed.add_argument('--overlap', type=float, default=0.25, metavar='SHARE',
                       help='share of a window that its neighbour covers too (default: 0.25)')
    for each in (pipeline, speed):
        each.add_argument('--window', type=int, default=512, metavar='PIXELS',
                          help='side of the windows (default: 512)')
        each.add_argument('--out', default='work_dirs/benchmark_raster', metavar='DIR',
                          help='folder of rasters and results '
                               '(default: work_dirs/benchmark_raster)')
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    from benchmarks.raster import benchmark_pipeline, benchmark_speed, render
    from bhvit_seg.raster.memory import parse_memory

    if args.command == 'pipeline':
        result = benchmark_pipeline(args.packed, args.out, args.side, args.window,
                                    parse_memory(args.max_memory))
    else:
        result = benchmark_speed(args.raster, args.packed, args.config, args.checkpoint, args.out,
                                 args.threads, args.window, args.overlap)
    print(render(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
