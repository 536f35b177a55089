"""The command ``bhvit-seg``; only the file of the chosen subcommand is imported."""

from __future__ import annotations

import argparse
import sys

from bhvit_seg.errors import UserError, command, similar_to

# Subcommands by task, with their summaries for `bhvit-seg --help`. The module of a subcommand has
# its name, with underscores, and DESCRIPTION, EXAMPLES, add_arguments(parser) and run(args), which
# returns the exit status (None: 0).
GROUPS = {
    'Getting started': {
        'demo': 'train a small model on synthetic scenes and draw what it predicts (minutes)',
        'doctor': 'print what is installed, what is missing for which task, and how to install it',
    },
    'Data': {
        'make-sample': 'write a synthetic data set of aerial scenes with roads',
        'check-dataset': 'check the images and labels of a config; print class weights',
    },
    'Training': {
        'configs': 'list the configs that CONFIG may name',
        'pretrain': 'pre-train a backbone on images without labels',
        'train': 'train the model of a config',
        'test': 'score a checkpoint: IoU and F1 of every class',
        'complexity': 'count operations, parameters and bytes of configs',
        'convert': 'convert a published BHViT checkpoint into weights for the backbone',
    },
    'Prediction': {
        'models': 'list the models that come with the package, ready to use',
        'export': 'pack a trained model into one file that runs without torch',
        'export-onnx': 'write a trained model for QGIS and other runtimes',
        'benchmark': 'time packed models on this machine, and against what it could do at best',
        'predict': 'predict image files, a video or a camera: label maps and overlays',
        'predict-raster': 'predict a georeferenced raster of any size',
        'score-raster': 'score a predicted raster against a raster of labels',
    },
}
SUMMARIES = {name: summary for group in GROUPS.values() for name, summary in group.items()}


def overview() -> str:
    width = max(map(len, SUMMARIES))
    lines = ['usage: bhvit-seg COMMAND [options]', '',
             '1-bit vision transformers (BHViT) for semantic segmentation.']
    for group, commands in GROUPS.items():
        lines += ['', f'{group}:']
        lines += [f'  {name:<{width}}  {summary}' for name, summary in commands.items()]
    return '\n'.join([*lines, '', '`bhvit-seg COMMAND --help` explains a command, with examples. '
                                  '`bhvit-seg --version` prints the version.'])


class Parser(argparse.ArgumentParser):
    """Answers wrong arguments with a UserError: one sentence, without the usage before it."""

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        self._given = sys.argv[1:] if args is None else args
        return super().parse_args(args, namespace)

    def error(self, message: str) -> None:
        options = self._option_string_actions
        for word in self._given:
            name = word.partition('=')[0]
            # argparse takes beginnings of options too
            if len(name) > 2 and name[:2] == '--' and not any(
                    option.startswith(name) for option in options):
                message = f'there is no option {name}{similar_to(name, options)}'
                break
        raise UserError(f'{message}; see `{self.prog} --help`')


def run_command(name: str, arguments: list[str] | None = None) -> int:
    """Parse the arguments of a subcommand, by default those of the process, and run it."""
    import importlib
    import textwrap

    module = importlib.import_module(f'bhvit_seg.commands.{name.replace("-", "_")}')
    parser = Parser(
        prog=f'bhvit-seg {name}', description=textwrap.fill(module.DESCRIPTION, 80),
        epilog='\n  '.join(['examples:', *module.EXAMPLES]),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return module.run(parser.parse_args(arguments)) or 0


@command
def main(arguments: list[str] | None = None) -> int:
    """Run ``bhvit-seg`` with what follows the program's name; return the exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ['']
    if name in ('-h', '--help', 'help'):
        print(overview())
        return 0
    if name in ('-V', '--version'):
        import bhvit_seg

        print(bhvit_seg.__version__)
        return 0
    if not name:
        print(overview(), file=sys.stderr)
        return 2
    if name not in SUMMARIES:
        raise UserError(f'bhvit-seg has no command {name}{similar_to(name, SUMMARIES)}: expected '
                        f'one of {", ".join(SUMMARIES)}')
    return run_command(name, rest)


def run_tool(name: str):
    """Return the entry point of a script in ``tools/`` that stands for a subcommand."""

    @command
    def tool(arguments: list[str] | None = None) -> int:
        return run_command(name, arguments)

    return tool
