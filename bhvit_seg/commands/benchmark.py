"""``bhvit-seg benchmark``: how fast packed models are on this machine."""

import argparse

from bhvit_seg.errors import UserError

DESCRIPTION = (
    'Times packed models on this machine, from an image in memory to its labels: on one thread and '
    'on all, and as a fraction of what the processor does at best. Needs neither torch nor the '
    'OpenMMLab packages. By default all models that `bhvit-seg models` lists.')
EXAMPLES = ('bhvit-seg benchmark', 'bhvit-seg benchmark model.bhv --sizes 512',
            'bhvit-seg benchmark --model roads-1m')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('packed', nargs='?', metavar='MODEL.bhv', help='packed model')
    parser.add_argument('--model', metavar='NAME', help='model that `bhvit-seg models` lists')
    parser.add_argument('--sizes', type=int, nargs='+', default=[512, 224], metavar='PIXELS',
                        help='sides of square images (default: 512 224)')
    parser.add_argument('--seconds', type=float, default=2,
                        help='how long each is timed (default: 2)')


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from bhvit_seg.native import PATCH, processor_limits, usable_cores
    from bhvit_seg.native.speed import load, measure, processor_name
    from bhvit_seg.shipped import find_model, shipped_models

    if args.packed and args.model:
        raise UserError(f'{args.packed} and --model {args.model} are both given: leave one of them '
                        'out')
    names = [args.packed or args.model] if args.packed or args.model else list(shipped_models())
    if not names:
        raise UserError('no models are shipped with this version: give a packed model, which '
                        '`bhvit-seg export` writes')
    if min(args.sizes) < PATCH:
        raise UserError(f'--sizes has {min(args.sizes)}: expected numbers from {PATCH}')
    paths = {Path(name).name: find_model(name) for name in names}
    cores = usable_cores()
    rows = [('model', 'MB', 'pixels', 'threads', 'ms', 'median', 'images/s', 'GMAC/s',
             '% of limit')]
    limits = None
    for name, path in paths.items():
        for threads in sorted({1, cores}):
            engine = load(path, threads)
            if limits is None:
                limits = processor_limits(engine.isa)
                print(f'{processor_name()}, cores: {cores}, {engine.isa}, at best '
                      f'{limits[0] / 1e9:.0f} binary and {limits[1] / 1e9:.0f} float GMAC/s a core')
            for side in args.sizes:
                speed = measure(engine, (side, side), limits, args.seconds)
                rows.append((name, f'{path.stat().st_size / 1e6:.2f}', f'{side}×{side}',
                             str(threads), f'{speed.milliseconds:.1f}', f'{speed.median:.1f}',
                             f'{1e3 / speed.median:.1f}', f'{speed.rate:.0f}',
                             f'{100 * speed.share:.0f}'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join([f'{row[0]:<{widths[0]}}',
                         *(f'{cell:>{width}}' for cell, width in zip(row[1:], widths[1:]))]))
