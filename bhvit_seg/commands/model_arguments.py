"""Which model a prediction takes: a checkpoint with its config, in torch, or a packed one."""

from __future__ import annotations

import argparse

from bhvit_seg.commands.arguments import CONFIG_HELP
from bhvit_seg.errors import UserError

TORCH_ALONE = ('config', 'checkpoint', 'device', 'cfg_options')


def add_model_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the arguments that name a model."""
    parser.add_argument('--model', metavar='NAME',
                        help='model that `bhvit-seg models` lists, or a packed model')
    parser.add_argument('--packed', metavar='BHV', help='packed model of `bhvit-seg export`')
    parser.add_argument('--config', help=f'instead of a packed model: {CONFIG_HELP}')
    parser.add_argument('--checkpoint', help='checkpoint file of --config')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
        help='settings that override those of the config, such as '
             'model.backbone.window_size=8 (lists: KEY="[a,b]")')


def check_model_arguments(args: argparse.Namespace) -> None:
    """See that either a checkpoint with its config or a packed model is given.

    Sets ``args.packed`` to the file of a model given by name, ``args.config`` to that of a config.

    Raises:
        UserError: Neither is, or both are, or there is no such config or model.
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
        return
    for name in TORCH_ALONE:
        if getattr(args, name) is not None:
            raise UserError(f'{packed} and --{name.replace("_", "-")} are given, but a packed '
                            'model is all that its prediction takes: leave one of them out')
