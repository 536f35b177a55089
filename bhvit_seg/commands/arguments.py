"""Arguments that several subcommands have. Adding them imports neither torch nor mmengine."""

import argparse

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import check_checkpoint

CONFIG_HELP = 'config file, or the name of a config that `bhvit-seg configs` lists'
TORCH_ALONE = ('config', 'checkpoint', 'device', 'cfg_options')


class OptionsAction(argparse.Action):
    """``KEY=VALUE`` arguments as a dict, read as mmengine's tools read them."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from bhvit_seg.training.config import parse_options

        earlier = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**earlier, **parse_options(values)})


def add_config(parser: argparse._ActionsContainer, **kwargs) -> None:
    parser.add_argument('config', metavar='CONFIG', help=CONFIG_HELP, **kwargs)


def add_cfg_options(parser: argparse._ActionsContainer, action=OptionsAction) -> None:
    """Add ``--cfg-options``, which becomes a dict, or None where it is not given."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=action, metavar='KEY=VALUE',
        help='settings that override those of the config, such as train_dataloader.batch_size=4 or '
             'model.backbone.window_size=8 (lists: KEY="[a,b]")')


def add_launcher(parser: argparse._ActionsContainer) -> None:
    """Add ``--launcher``, and the option that ``torch.distributed.launch`` passes."""
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='what started the processes of a distributed run (default: none)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def use_launcher(args: argparse.Namespace) -> None:
    """Set ``LOCAL_RANK``, which mmengine reads, from the arguments of :func:`add_launcher`."""
    import os

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def add_model(parser: argparse._ActionsContainer) -> None:
    """Add the arguments that name a model: a packed one, or a checkpoint with its config."""
    parser.add_argument('--model', metavar='NAME',
                        help='model that `bhvit-seg models` lists, or a packed model')
    parser.add_argument('--packed', metavar='BHV', help='packed model of `bhvit-seg export`')
    parser.add_argument('--config', help=f'instead of a packed model: {CONFIG_HELP}')
    parser.add_argument('--checkpoint', help='checkpoint file of --config')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    add_cfg_options(parser, 'extend')  # packed models are run where nothing parses them


def check_model(args: argparse.Namespace) -> None:
    """Check that either a checkpoint with its config or a packed model is given.

    Sets ``args.packed`` and ``args.config`` to files, and ``args.cfg_options`` to a dict.

    Raises:
        UserError: Neither or both are given, or there is no such config or model.
    """
    from bhvit_seg.shipped import find_config, find_model

    packed = '--packed' if args.model is None else '--model'
    if args.model is not None:
        if args.packed is not None:
            raise UserError(f'--model {args.model} and --packed {args.packed} are both given: '
                            'leave one of them out')
        args.packed = str(find_model(args.model))
    if args.packed is None:
        if args.config is None or args.checkpoint is None:
            raise UserError('no model is given: expected --model, --packed, or --config and '
                            '--checkpoint')
        args.config = str(find_config(args.config))
        check_checkpoint(args.checkpoint)
        if args.cfg_options:
            from bhvit_seg.training.config import parse_options

            args.cfg_options = parse_options(args.cfg_options)
    else:
        for name in TORCH_ALONE:
            if getattr(args, name) is not None:
                raise UserError(f'{packed} and --{name.replace("_", "-")} are given, but a packed '
                                'model is all that its prediction takes: leave one of them out')
    args.cfg_options = args.cfg_options or {}
