"""Packs a trained model: ``python tools/export_packed.py CONFIG CHECKPOINT model.bhv``."""

from __future__ import annotations

import argparse

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    from bhvit_seg.inference.inputs import find_images
    from bhvit_seg.native.packing import PRECISIONS, export_packed
    from bhvit_seg.training.config import add_cfg_options

    parser = argparse.ArgumentParser(
        description='Folds a trained segmentor into one file for the packed engine, and sees that '
                    'it gives the labels that torch gives.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', metavar='OUT.bhv', help='file to write')
    parser.add_argument('--images', nargs='+', default=[], metavar='IN',
                        help='images, folders or glob patterns to verify with (default: synthetic '
                             'scenes)')
    parser.add_argument('--lidar', metavar='DIR',
                        help='folder of LiDAR rasters named like the images, for models that '
                             'read them')
    parser.add_argument('--precision', choices=PRECISIONS, default='auto',
                        help='bits of full-precision weights and position embeddings (default: '
                             'auto, 16 where that changes no label of the verification)')
    parser.add_argument('--no-verify', action='store_true',
                        help='do not compare with torch; auto is 32 then')
    parser.add_argument('--threads', type=int, metavar='N',
                        help='threads of the engine (default: all cores)')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    report = export_packed(
        args.config, args.checkpoint, args.out, lidar=args.lidar,
        images=find_images(args.images, args.out) if args.images else (),
        precision=args.precision, verify=not args.no_verify, threads=args.threads,
        cfg_options=args.cfg_options)
    print(report.summary())
    print(f'wrote {report.path}')


if __name__ == '__main__':
    main()
