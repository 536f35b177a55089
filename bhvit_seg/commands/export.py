"""``bhvit-seg export``: packs a trained model."""

import argparse

from bhvit_seg.commands.arguments import add_cfg_options, add_config
from bhvit_seg.fileio import check_checkpoint

DESCRIPTION = (
    'Folds a trained segmentor into one file for the packed engine, and verifies that it gives '
    'the labels that torch gives. `bhvit-seg predict --packed` and `bhvit-seg predict-raster '
    '--packed` then need neither torch nor the OpenMMLab packages.')
EXAMPLES = (
    'bhvit-seg export my_config.py work_dirs/my_config/iter_3000.pth model.bhv',
    'bhvit-seg export my_config.py iter_3000.pth model.bhv --images my_tiles/images/val')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file')
    parser.add_argument('out', metavar='OUT.bhv', help='file to write')
    parser.add_argument('--images', nargs='+', default=[], metavar='IN',
                        help='images, folders or glob patterns to verify with (default: synthetic '
                             'scenes)')
    parser.add_argument('--lidar', metavar='DIR',
                        help='folder of LiDAR rasters named like the images, for models that '
                             'read them')
    parser.add_argument('--precision', metavar='BITS', default='auto',
                        help='bits of full-precision weights and position embeddings: 16, 32 or '
                             'auto, 16 where the labels of the verification stay within what is '
                             'accepted (default: auto)')
    parser.add_argument('--no-verify', action='store_true',
                        help='do not compare with torch; auto is 32 then')
    parser.add_argument('--threads', type=int, metavar='N',
                        help='threads of the engine (default: all cores)')
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    check_checkpoint(args.checkpoint)
    from bhvit_seg.inference.inputs import find_images
    from bhvit_seg.native.packing import export_packed

    report = export_packed(
        args.config, args.checkpoint, args.out, lidar=args.lidar,
        images=find_images(args.images, args.out) if args.images else (), precision=args.precision,
        verify=not args.no_verify, threads=args.threads, cfg_options=args.cfg_options)
    print(report.summary())
    print(f'wrote {report.path}')
