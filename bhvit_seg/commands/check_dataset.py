"""``bhvit-seg check-dataset``: checks the images and labels of a config."""

import argparse

from bhvit_seg.commands.arguments import add_cfg_options, add_config

DESCRIPTION = (
    'Reads every image and label of a config, names the files that are wrong, and prints how '
    'often each class occurs, class weights, means and deviations to paste into a config. The '
    'status is 1 if something is wrong.')
EXAMPLES = (
    'bhvit-seg check-dataset bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224 --data-root my_tiles',
    'bhvit-seg check-dataset my_config.py --split val')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                        help='which part (default: train)')
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> int:
    from bhvit_seg.training.config import load_config
    from bhvit_seg.training.config_check import check_split

    cfg = load_config(args.config, args.cfg_options, args.data_root)
    report = check_split(cfg, args.split)
    print(report.summary())
    return 1 if report.problems else 0
