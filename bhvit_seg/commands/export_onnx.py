"""``bhvit-seg export-onnx``: writes a trained model for other runtimes."""

import argparse

from bhvit_seg.commands.arguments import CONFIG_HELP, add_cfg_options
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import check_checkpoint

DESCRIPTION = (
    'Writes a segmentor, from its checkpoint or a packed model, as ONNX in float32, with the keys '
    'that Deepness (QGIS) and GeoDeep (WebODM) read, and verifies with onnxruntime that it gives '
    'the labels that torch gives. Bits are simulated: the packed model is smaller and faster.')
EXAMPLES = (
    'bhvit-seg export-onnx my_config.py work_dirs/my_config/iter_3000.pth model.onnx',
    'bhvit-seg export-onnx my_config.py iter_3000.pth model.onnx --size 512 --images my_tiles/',
    'bhvit-seg export-onnx roads-1m roads.onnx --size 512')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = '%(prog)s [options] (CONFIG CHECKPOINT | MODEL) OUT.onnx'
    parser.add_argument('model', nargs='+', metavar='MODEL',
                        help=f'{CONFIG_HELP}, and a checkpoint file; or a packed model, by its '
                             'path or the name that `bhvit-seg models` lists')
    parser.add_argument('out', metavar='OUT.onnx', help='file to write')
    parser.add_argument('--size', type=int, metavar='PIXELS',
                        help='side of the images that the model takes, a multiple of 32 (default: '
                             'the training crop)')
    parser.add_argument('--dynamic', action='store_true',
                        help='take images of all sizes whose sides are multiples of 32; QGIS and '
                             'WebODM need one size')
    parser.add_argument('--images', nargs='+', default=[], metavar='IN',
                        help='images, folders or glob patterns to verify with (default: synthetic '
                             'scenes)')
    parser.add_argument('--lidar', metavar='DIR',
                        help='folder of LiDAR rasters named like the images, for models that '
                             'read them')
    parser.add_argument('--no-verify', action='store_true', help='do not compare with torch')
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    config, checkpoint, *more = [*args.model, None]
    if len(args.model) > 2:
        raise UserError(f'{" ".join(more[:-1])} is given besides {config} {checkpoint} and '
                        f'{args.out}: expected CONFIG CHECKPOINT OUT.onnx or MODEL OUT.onnx')
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    from bhvit_seg.inference.inputs import find_images
    from bhvit_seg.native.onnx_export import export_onnx

    report = export_onnx(
        config, checkpoint, args.out, args.size, args.dynamic, lidar=args.lidar,
        images=find_images(args.images, args.out) if args.images else (),
        verify=not args.no_verify, cfg_options=args.cfg_options)
    print(report.summary())
    print(f'wrote {report.path}, {report.path.stat().st_size / 1e6:.1f} MB')
