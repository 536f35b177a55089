"""``bhvit-seg predict``: predicts image files."""

from __future__ import annotations

import argparse
import sys

from bhvit_seg.commands.model_arguments import add_model_arguments, check_model_arguments
from bhvit_seg.errors import UserError

DESCRIPTION = (
    'Predicts images: label maps into OUT/labels, overlays into OUT/overlays. The values of a '
    'label map are class ids. A prediction that was interrupted goes on with the same command.')
EXAMPLES = (
    'bhvit-seg predict tiles/ --packed model.bhv --out predictions',
    'bhvit-seg predict tiles/*.jpg --config my_config.py --checkpoint iter_3000.pth '
    '--out predictions')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('inputs', nargs='+', metavar='IN', help='image, folder or glob pattern')
    add_model_arguments(parser)
    parser.add_argument('--out', required=True, metavar='DIR', help='output folder')
    parser.add_argument('--threads', type=int, metavar='N',
                        help='threads of the packed model (default: all cores)')
    parser.add_argument('--lidar', metavar='DIR',
                        help='folder of LiDAR rasters named like the images, for models that '
                             'read them')
    parser.add_argument('--opacity', type=float, default=0.5, metavar='X',
                        help='opacity of the class colours in overlays, 0 to 1 (default: 0.5)')
    parser.add_argument('--no-overlay', action='store_true', help='write label maps only')
    parser.add_argument('--overwrite', action='store_true',
                        help='predict again what is there already')


def run(args: argparse.Namespace) -> int:
    check_model_arguments(args)
    if args.packed is None and args.threads is not None:
        raise UserError('--threads is of packed models: give --packed, or set OMP_NUM_THREADS for '
                        'torch')
    options = dict(lidar=args.lidar, opacity=args.opacity, overlay=not args.no_overlay,
                   overwrite=args.overwrite)
    if args.packed is not None:
        from bhvit_seg.inference.packed_predictor import predict_packed

        report = predict_packed(args.inputs, args.packed, args.out, args.threads, **options)
    else:
        from bhvit_seg.inference.torch_predictor import predict
        from bhvit_seg.training.config import parse_options

        report = predict(args.inputs, args.config, args.checkpoint, args.out, args.device,
                         parse_options(args.cfg_options or []), **options)
    print(f'{len(report.written)} predicted into {args.out}, {len(report.skipped)} already there, '
          f'{len(report.failed)} failed')
    for sentence in report.failed.values():
        print(f'error: {sentence}', file=sys.stderr)
    return 1 if report.failed else 0
