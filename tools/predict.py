"""Predicts images: ``python tools/predict.py tiles/ --config ... --checkpoint ... --out ...``."""

from __future__ import annotations

import argparse
import sys

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> int:
    from bhvit_seg.apis.config import add_cfg_options
    from bhvit_seg.apis.predict import predict

    parser = argparse.ArgumentParser(
        description='Predicts images: label maps into OUT/labels, overlays into OUT/overlays.')
    parser.add_argument('inputs', nargs='+', metavar='IN', help='image, folder or glob pattern')
    parser.add_argument('--config', required=True, help='config file')
    parser.add_argument('--checkpoint', required=True, help='checkpoint file')
    parser.add_argument('--out', required=True, metavar='DIR', help='output folder')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument('--lidar', metavar='DIR',
                        help='folder of LiDAR rasters named like the images, for models that '
                             'read them')
    parser.add_argument('--opacity', type=float, default=0.5, metavar='X',
                        help='share of the class colours in overlays, 0 to 1 (default: 0.5)')
    parser.add_argument('--no-overlay', action='store_true', help='write label maps only')
    parser.add_argument('--overwrite', action='store_true',
                        help='predict anew what is there already')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    report = predict(
        args.inputs, args.config, args.checkpoint, args.out, device=args.device,
        lidar=args.lidar, opacity=args.opacity, overlay=not args.no_overlay,
        overwrite=args.overwrite, cfg_options=args.cfg_options)
    print(f'{len(report.written)} predicted into {args.out}, {len(report.skipped)} already there, '
          f'{len(report.failed)} failed')
    for sentence in report.failed.values():
        print(f'error: {sentence}', file=sys.stderr)
    return 1 if report.failed else 0


if __name__ == '__main__':
    sys.exit(main())
