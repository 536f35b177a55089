"""The command ``bhvit-seg``: maps of rasters, help with data sets, a doctor for the installation.

Parsing needs neither torch nor the mm stack; a subcommand imports what it uses.
"""

from __future__ import annotations

import argparse
import sys

import bhvit_seg
from bhvit_seg.commands import predict_raster
from bhvit_seg.errors import command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each subcommand sets ``run`` to its function."""
    parser = argparse.ArgumentParser(
        prog='bhvit-seg', description='1-bit vision transformers for semantic segmentation.')
    parser.add_argument('--version', action='version', version=bhvit_seg.__version__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    doctor = commands.add_parser(
        'doctor', help='print versions, what is missing or does not fit, and how to mend it')
    doctor.set_defaults(run=run_doctor)

    check = commands.add_parser(
        'check-dataset', help='check the images and labels of a config; print class weights')
    check.add_argument('config', help='config file')
    check.add_argument('--data-root', metavar='DIR', help='folder of the data')
    check.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                       help='which part (default: train)')
    check.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', default=[],
                       help='settings that override those of the config')
    check.set_defaults(run=run_check_dataset)

    sample = commands.add_parser(
        'make-sample', help='write a synthetic data set of aerial scenes with roads')
    sample.add_argument('folder', metavar='DIR', help='where to write it')
    sample.add_argument('--train', type=int, default=48, metavar='N',
                        help='training scenes (default: 48)')
    sample.add_argument('--val', type=int, default=12, metavar='N',
                        help='validation scenes (default: 12)')
    sample.add_argument('--size', type=int, default=256, metavar='PIXELS',
                        help='side of a scene (default: 256)')
    sample.add_argument('--seed', type=int, default=0, help='random seed (default: 0)')
    sample.add_argument('--lidar', action='store_true', help='write height rasters as well')
    sample.set_defaults(run=run_make_sample)

    raster = commands.add_parser(
        'predict-raster', help='map a georeferenced raster of any size',
        description=predict_raster.DESCRIPTION)
    predict_raster.add_arguments(raster)
    raster.set_defaults(run=predict_raster.run)
    return parser


def run_doctor(args: argparse.Namespace) -> int:
    from bhvit_seg.compat.doctor import examine, render

    diagnosis = examine()
    print(render(diagnosis))
    return 1 if diagnosis.problems else 0


def run_check_dataset(args: argparse.Namespace) -> int:
    from bhvit_seg.training.config import load_config, parse_options
    from bhvit_seg.training.config_check import check_split

    cfg = load_config(args.config, parse_options(args.cfg_options), args.data_root)
    report = check_split(cfg, args.split)
    print(report.summary())
    return 1 if report.problems else 0


def run_make_sample(args: argparse.Namespace) -> int:
    from bhvit_seg.datasets.synthetic import write_dataset

    write_dataset(args.folder, n_train=args.train, n_val=args.val, size=(args.size, args.size),
                  seed=args.seed, lidar=args.lidar)
    print(f'{args.train} training and {args.val} validation scenes in {args.folder}')
    return 0


@command
def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = build_parser().parse_args(argv)
    return args.run(args)


if __name__ == '__main__':
    sys.exit(main())
