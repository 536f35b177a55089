"""``bhvit-seg predict``: predicts image files, videos and cameras."""

import argparse
import sys

from bhvit_seg.commands.arguments import add_model, check_model
from bhvit_seg.errors import UserError

DESCRIPTION = (
    'Predicts images: label maps into OUT/labels, overlays into OUT/overlays. The values of a '
    'label map are class ids. OUT is made if it is not there, and may hold other files. A '
    'prediction that was interrupted is continued by the same command; OUT/prediction.json says '
    'which files, model and options each label map is of, and what is of others is refused, or '
    'replaced with --overwrite. A video or a camera, named by its number, becomes a video OUT of '
    'overlays, without sound; Ctrl-C ends it, and what is there so far can be played.')
EXAMPLES = (
    'bhvit-seg predict tiles/ --packed model.bhv --out predictions',
    'bhvit-seg predict tiles/*.jpg --config my_config.py --checkpoint iter_3000.pth '
    '--out predictions',
    'bhvit-seg predict flight.mp4 --model landcover --out labelled.mp4',
    'bhvit-seg predict 0 --model landcover --long-side 640 --out camera.mp4')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('inputs', nargs='+', metavar='IN',
                        help='image, folder or glob pattern; or a video, or the number of a camera')
    add_model(parser)
    parser.add_argument('--out', required=True, metavar='OUT',
                        help='output folder, where label maps are named as the images are below '
                             'IN; of a video a file: .mp4, .mov, .mkv or .avi')
    parser.add_argument('--threads', type=int, metavar='N',
                        help='threads of the packed model (default: all cores)')
    parser.add_argument('--lidar', metavar='DIR',
                        help='folder of LiDAR rasters named like the images, for models that '
                             'read them')
    parser.add_argument('--opacity', type=float, default=0.5, metavar='X',
                        help='opacity of the class colours in overlays, 0 to 1 (default: 0.5)')
    parser.add_argument('--no-overlay', action='store_true', help='write label maps only')
    parser.add_argument('--overwrite', action='store_true',
                        help='predict again what is there already, and replace other files of the '
                             'same names; never inputs')
    parser.add_argument('--long-side', type=int, metavar='PIXELS',
                        help='longer side that frames of a video are reduced to for the model; '
                             'overlays keep their size (default: as they are)')
    parser.add_argument('--window', type=int, metavar='PIXELS',
                        help='side of overlapping windows that larger images are predicted in '
                             '(default: the training crop, for images of more than 2048x2048)')
    parser.add_argument('--whole', action='store_true',
                        help='predict images of any size in one piece')


def run(args: argparse.Namespace) -> int:
    check_model(args)
    if args.packed is None and args.threads is not None:
        raise UserError('--threads is of packed models: give --model or --packed, or set '
                        'OMP_NUM_THREADS for torch')
    from bhvit_seg.inference.inputs import VIDEO_SUFFIXES, is_video
    from bhvit_seg.inference.source import ModelSource

    source = ModelSource(args.packed, args.config, args.checkpoint, args.device, args.threads,
                         args.cfg_options)
    if any(map(is_video, args.inputs)) or args.out.lower().endswith(VIDEO_SUFFIXES):
        return run_video(args, source)
    if args.long_side is not None:
        raise UserError(f'--long-side {args.long_side} is of videos, and {args.inputs[0]} is none: '
                        'leave it out')
    from bhvit_seg.inference.prediction import predict_files

    report = predict_files(
        args.inputs, source, args.out, lidar=args.lidar, opacity=args.opacity,
        overlay=not args.no_overlay, overwrite=args.overwrite, window=args.window,
        whole=args.whole)
    print(f'{len(report.written)} predicted into {args.out}, {len(report.skipped)} already there, '
          f'{len(report.failed)} failed')
    for sentence in report.notes:
        print(f'note: {sentence}', file=sys.stderr)
    for sentence in report.failed.values():
        print(f'error: {sentence}', file=sys.stderr)
    return 1 if report.failed else 0


def run_video(args: argparse.Namespace, source) -> int:
    if len(args.inputs) > 1:
        raise UserError(f'{len(args.inputs)} inputs are given, and a video is predicted by itself: '
                        f'give {args.inputs[0]} alone')
    for name in ('lidar', 'no_overlay'):
        if getattr(args, name):
            raise UserError(f'--{name.replace("_", "-")} is of images, and of a video the frames '
                            'with overlays are written: leave it out')
    from bhvit_seg.inference.video import predict_video

    report = predict_video(args.inputs[0], source, args.out, args.opacity, args.overwrite,
                           args.window, args.whole, args.long_side)
    print(f'{report.labelled} frames predicted into {args.out}, without sound: {report}')
    if report.lost:
        print(f'error: {report.lost} frames of {args.inputs[0]} cannot be decoded and are left out',
              file=sys.stderr)
    return 1 if report.lost else 0
