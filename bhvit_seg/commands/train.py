"""``bhvit-seg train``: trains the model of a config."""

import argparse

from bhvit_seg.commands.arguments import add_cfg_options, add_config, add_launcher, use_launcher
from bhvit_seg.fileio import check_checkpoint

DESCRIPTION = (
    'Trains the model of a config. A training that was interrupted goes on with --resume, to the '
    'same losses as if it had never stopped.')
EXAMPLES = (
    'bhvit-seg train bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224 --data-root my_tiles',
    'bhvit-seg train my_config.py --work-dir runs/a --resume',
    'bhvit-seg train my_config.py --cfg-options optim_wrapper.optimizer.lr=1e-4 '
    'train_dataloader.batch_size=2')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data')
    parser.add_argument('--work-dir', metavar='DIR',
                        help='folder of checkpoints and logs (default: work_dirs/<config name>)')
    parser.add_argument('--resume', nargs='?', const=True, metavar='CHECKPOINT',
                        help='continue from this checkpoint, or from the last one in the work dir')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument('--seed', type=int, help="random seed (default: the config's)")
    add_cfg_options(parser)
    add_launcher(parser)


def run(args: argparse.Namespace) -> None:
    use_launcher(args)
    if isinstance(args.resume, str):
        check_checkpoint(args.resume)
    from bhvit_seg.training.train import train

    train(args.config, data_root=args.data_root, work_dir=args.work_dir, resume=args.resume,
          amp=args.amp, seed=args.seed, cfg_options=args.cfg_options, launcher=args.launcher)
