"""Arguments that several subcommands have. Adding them imports neither torch nor mmengine."""

from __future__ import annotations

import argparse

CONFIG_HELP = 'config file, or the name of a config that `bhvit-seg configs` lists'


class OptionsAction(argparse.Action):
    """``KEY=VALUE`` arguments as a dict, read as mmengine's tools read them."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from bhvit_seg.training.config import parse_options

        earlier = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**earlier, **parse_options(values)})


def add_config(parser: argparse._ActionsContainer, **kwargs) -> None:
    """Add the positional argument ``config``."""
    parser.add_argument('config', metavar='CONFIG', help=CONFIG_HELP, **kwargs)


def add_cfg_options(parser: argparse._ActionsContainer) -> None:
    """Add ``--cfg-options``, which becomes a dict, or None where it is not given."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE',
        help='settings that override those of the config, such as '
             'train_dataloader.batch_size=4 (lists: KEY="[a,b]")')


def add_launcher(parser: argparse._ActionsContainer) -> None:
    """Add ``--launcher``, and the option that ``torch.distributed.launch`` passes."""
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='what started the processes of a distributed run (default: none)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def use_launcher(args: argparse.Namespace) -> None:
    """Set ``LOCAL_RANK``, which mmengine reads, from the arguments of :func:`add_launcher`."""
    import os

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
