"""Trains a model: ``python tools/train.py configs/bhvit/... --data-root data/my_tiles``."""

from __future__ import annotations

import argparse
import os

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    from bhvit_seg.training.config import add_cfg_options, add_launcher
    from bhvit_seg.training.train import train

    parser = argparse.ArgumentParser(description='Trains the model of a config.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data')
    parser.add_argument('--work-dir', metavar='DIR',
                        help='folder of checkpoints and logs (default: work_dirs/<config name>)')
    parser.add_argument('--resume', nargs='?', const=True, metavar='CHECKPOINT',
                        help='go on from this checkpoint, or from the last one in the work dir')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument('--seed', type=int, help="random seed (default: the config's)")
    add_cfg_options(parser)
    add_launcher(parser)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    train(args.config, data_root=args.data_root, work_dir=args.work_dir, resume=args.resume,
          amp=args.amp, seed=args.seed, cfg_options=args.cfg_options, launcher=args.launcher)


if __name__ == '__main__':
    main()
