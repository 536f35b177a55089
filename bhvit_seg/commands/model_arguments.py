"""Which model a prediction takes: a checkpoint with its config, in torch, or a packed one."""

from __future__ import annotations

import argparse

from bhvit_seg.errors import UserError

TORCH_ALONE = ('config', 'checkpoint', 'device', 'cfg_options')


def add_model_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the arguments that name a model."""
    parser.add_argument('--packed', metavar='BHV', help='packed model of tools/export_packed.py')
    parser.add_argument('--config', help='config file, instead of --packed')
    parser.add_argument('--checkpoint', help='checkpoint file of --config')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
        help='settings that override those of the config, such as '
             'model.backbone.window_size=8 (lists: KEY="[a,b]")')


def check_model_arguments(args: argparse.Namespace) -> None:
    """See that either a checkpoint with its config or a packed model is given.

    Raises:
        UserError: Neither is, or both are.
    """
    if args.packed is None:
        if args.config is None or args.checkpoint is None:
            raise UserError('no model is given: expected --packed, or --config and --checkpoint')
        return
    for name in TORCH_ALONE:
        if getattr(args, name) is not None:
            raise UserError(f'--packed and --{name.replace("_", "-")} are given, but a packed '
                            'model is all that its prediction takes: leave one of them out')
