"""``bhvit-seg configs``: lists the configs that are shipped."""

import argparse

DESCRIPTION = (
    'Lists the configs that the package brings. Every command that takes CONFIG takes one of '
    'these names, or the path of a file. A file of your own can build on one by its full path: '
    "_base_ = '<path printed by bhvit-seg configs --paths>'.")
EXAMPLES = (
    'bhvit-seg configs',
    'bhvit-seg configs tiny segformer rs-lvf',
    'bhvit-seg configs --paths bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('words', nargs='*', metavar='WORD', help='list only names with these words')
    parser.add_argument('--paths', action='store_true', help='print paths instead of names')


def run(args: argparse.Namespace) -> int:
    from bhvit_seg.shipped import config_paths

    paths = [path for name, path in config_paths().items()
             if all(word in name for word in args.words)]
    for path in paths:
        print(path if args.paths else path.stem)
    return 0 if paths else 1
