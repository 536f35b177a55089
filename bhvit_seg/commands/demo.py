"""``bhvit-seg demo``: trains a small model on synthetic scenes and draws what it predicts."""

import argparse

from bhvit_seg.errors import explain_interrupt

CONFIG = 'bhvit-mini_segformer_1xb8-250_rs-lvf-224x224'
DESCRIPTION = (
    'Writes synthetic aerial scenes, trains a small binary BHViT on them (some minutes on '
    'two CPU cores), tests it, predicts, packs it, and draws everything into '
    'DIR/contact_sheet.png. Steps that are finished are not repeated when it is started again.')
EXAMPLES = ('bhvit-seg demo', 'bhvit-seg demo --out /tmp/bhvit_demo')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--out', default='demo', metavar='DIR',
                        help='folder for everything (default: demo)')


def run(args: argparse.Namespace) -> None:
    from bhvit_seg.commands.demonstration import run_demo

    with explain_interrupt(lambda: f'what is finished is kept in {args.out}; the same command '
                                   'continues'):
        run_demo(CONFIG, args.out)
