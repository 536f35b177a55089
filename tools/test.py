"""Scores a model: ``python tools/test.py configs/bhvit/... work_dirs/.../best_mIoU_*.pth``."""

from __future__ import annotations

import argparse
import os

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    from bhvit_seg.evaluation.scores import class_table
    from bhvit_seg.evaluation.test import test
    from bhvit_seg.training.config import add_cfg_options, add_launcher

    parser = argparse.ArgumentParser(
        description='Scores a checkpoint: IoU and F1 of every class, as a table and as JSON.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data')
    parser.add_argument('--work-dir', metavar='DIR',
                        help='folder of logs and scores (default: work_dirs/<config name>)')
    parser.add_argument('--out', metavar='DIR', help='folder for the predicted label maps')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_cfg_options(parser)
    add_launcher(parser)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    result = test(args.config, args.checkpoint, data_root=args.data_root, work_dir=args.work_dir,
                  out=args.out, tta=args.tta, cfg_options=args.cfg_options,
                  launcher=args.launcher)
    if result['classes']:
        print(class_table(result['classes'], result['summary']))


if __name__ == '__main__':
    main()
