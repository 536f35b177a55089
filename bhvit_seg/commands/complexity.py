"""``bhvit-seg complexity``: counts what networks cost."""

import argparse

from bhvit_seg.commands.arguments import CONFIG_HELP, add_cfg_options
from bhvit_seg.errors import UserError

DESCRIPTION = (
    'Counts FLOPs (multiply-accumulates in real values), BOPs (those of bits), OPs = FLOPs + BOPs '
    '/ 64, parameters of 1 bit and of 32, and bytes. Norms, activations and whatever else is done '
    'once for an element do not count. The status is 1 if a layer is of a type that cannot be '
    'counted; it is named then.')
EXAMPLES = (
    'bhvit-seg complexity bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224',
    'bhvit-seg complexity my_config.py other_config.py --size 512 512 --json costs.json')
WIDTH = 1000  # in a file or a pipe, tables are as wide as they need to be


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('configs', nargs='+', metavar='CONFIG',
                        help=f'{CONFIG_HELP}; of several the totals are compared')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'),
                        help="height and width in pixels (default: the config's crop)")
    parser.add_argument('--depth', type=int, default=2, metavar='N',
                        help='add up layers whose names share N parts (default: 2)')
    parser.add_argument('--layers', action='store_true', help='show every layer')
    parser.add_argument('--json', metavar='FILE', help='write everything, layers too, to this file')
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.depth < 1:
        raise UserError(f'--depth is {args.depth}: expected a number from 1')
    from rich.console import Console

    from bhvit_seg.commands.costs import cost_table, measure_complexity, remarks
    from bhvit_seg.fileio import write_json

    records = [measure_complexity(config, args.size, args.cfg_options) for config in args.configs]
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(cost_table(records, None if args.layers else args.depth))
    for line in remarks(records):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if args.json:
        write_json(args.json, records)
    return 1 if any(record['unknown'] for record in records) else 0
