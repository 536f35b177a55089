"""``bhvit-seg make-sample``: writes a synthetic data set."""

import argparse

DESCRIPTION = (
    'Writes a synthetic data set of aerial scenes with roads, in the layout that the rs-lvf '
    'configs read: DIR/images/{train,val} and DIR/annotations/{train,val}.')
EXAMPLES = (
    'bhvit-seg make-sample sample',
    'bhvit-seg make-sample sample --train 160 --val 24 --size 448 --lidar')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', metavar='DIR', help='where to write it')
    parser.add_argument('--train', type=int, default=48, metavar='N',
                        help='training scenes (default: 48)')
    parser.add_argument('--val', type=int, default=12, metavar='N',
                        help='validation scenes (default: 12)')
    parser.add_argument('--size', type=int, default=256, metavar='PIXELS',
                        help='side of a scene (default: 256)')
    parser.add_argument('--seed', type=int, default=0, help='random seed (default: 0)')
    parser.add_argument('--lidar', action='store_true', help='write height rasters as well')


def run(args: argparse.Namespace) -> None:
    from bhvit_seg.datasets.synthetic import write_dataset

    write_dataset(args.folder, n_train=args.train, n_val=args.val, size=(args.size, args.size),
                  seed=args.seed, lidar=args.lidar)
    print(f'{args.train} training and {args.val} validation scenes in {args.folder}')
