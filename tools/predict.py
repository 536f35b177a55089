"""Predicts images: ``python tools/predict.py tiles/ --config ... --checkpoint ... --out ...``,
or from a packed model, without torch: ``python tools/predict.py tiles/ --packed ... --out ...``."""

from __future__ import annotations

import argparse
import sys

from bhvit_seg.errors import UserError, command

TORCH_ALONE = ('config', 'checkpoint', 'device', 'cfg_options')


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Predicts images: label maps into OUT/labels, overlays into OUT/overlays.')
    parser.add_argument('inputs', nargs='+', metavar='IN', help='image, folder or glob pattern')
    parser.add_argument('--config', help='config file')
    parser.add_argument('--checkpoint', help='checkpoint file')
    parser.add_argument('--packed', metavar='BHV',
                        help='packed model of tools/export_packed.py, instead of --config and '
                             '--checkpoint')
    parser.add_argument('--out', required=True, metavar='DIR', help='output folder')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument('--threads', type=int, metavar='N',
                        help='threads of the packed model (default: all cores)')
    parser.add_argument('--lidar', metavar='DIR',
                        help='folder of LiDAR rasters named like the images, for models that '
                             'read them')
    parser.add_argument('--opacity', type=float, default=0.5, metavar='X',
                        help='share of the class colours in overlays, 0 to 1 (default: 0.5)')
    parser.add_argument('--no-overlay', action='store_true', help='write label maps only')
    parser.add_argument('--overwrite', action='store_true',
                        help='predict anew what is there already')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
        help='settings that override those of the config, such as '
             'model.backbone.window_size=8 (lists: KEY="[a,b]")')
    return parser


def check_way(args: argparse.Namespace) -> None:
    """See that either a checkpoint with its config or a packed model is given.

    Raises:
        UserError: Neither is, or both are.
    """
    if args.packed is None:
        if args.config is None or args.checkpoint is None:
            raise UserError('no model is given: expected --config and --checkpoint, or --packed')
        if args.threads is not None:
            raise UserError('--threads is of packed models: give --packed, or set '
                            'OMP_NUM_THREADS for torch')
        return
    for name in TORCH_ALONE:
        if getattr(args, name) is not None:
            raise UserError(f'--packed and --{name.replace("_", "-")} are given, but a packed '
                            'model is all that its prediction takes: leave one of them out')


@command
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_way(args)
    options = dict(lidar=args.lidar, opacity=args.opacity, overlay=not args.no_overlay,
                   overwrite=args.overwrite)
    if args.packed is not None:
        from bhvit_seg.apis.predict_packed import predict_packed

        report = predict_packed(args.inputs, args.packed, args.out, args.threads, **options)
    else:
        from bhvit_seg.apis.config import parse_options
        from bhvit_seg.apis.predict import predict

        report = predict(args.inputs, args.config, args.checkpoint, args.out, args.device,
                         parse_options(args.cfg_options or []), **options)
    print(f'{len(report.written)} predicted into {args.out}, {len(report.skipped)} already there, '
          f'{len(report.failed)} failed')
    for sentence in report.failed.values():
        print(f'error: {sentence}', file=sys.stderr)
    return 1 if report.failed else 0


if __name__ == '__main__':
    sys.exit(main())
