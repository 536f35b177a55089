"""``bhvit-seg test``: scores a checkpoint."""

import argparse

from bhvit_seg.commands.arguments import add_cfg_options, add_config, add_launcher, use_launcher
from bhvit_seg.fileio import check_checkpoint

DESCRIPTION = (
    'Scores a checkpoint on the test set of its config: IoU and F1 of every class, as a table and '
    'as WORK_DIR/test_<checkpoint>.json.')
EXAMPLES = (
    'bhvit-seg test my_config.py work_dirs/my_config/best_mIoU_iter_3000.pth '
    '--data-root my_tiles',
    'bhvit-seg test my_config.py checkpoint.pth --tta --out predicted_labels')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file')
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data')
    parser.add_argument('--work-dir', metavar='DIR',
                        help='folder of logs and scores (default: work_dirs/<config name>)')
    parser.add_argument('--out', metavar='DIR', help='folder for the predicted label maps')
    parser.add_argument('--tta', action='store_true',
                        help='test-time augmentation: average over scaled and mirrored images')
    add_cfg_options(parser)
    add_launcher(parser)


def run(args: argparse.Namespace) -> None:
    use_launcher(args)
    check_checkpoint(args.checkpoint)
    from bhvit_seg.evaluation.scores import class_table
    from bhvit_seg.evaluation.test import test

    result = test(args.config, args.checkpoint, data_root=args.data_root, work_dir=args.work_dir,
                  out=args.out, tta=args.tta, cfg_options=args.cfg_options,
                  launcher=args.launcher)
    if result['classes']:
        print(class_table(result['classes'], result['summary']))
