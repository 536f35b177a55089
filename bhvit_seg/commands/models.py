"""``bhvit-seg models``: lists the models that are shipped."""

import argparse
import json
import re
from collections.abc import Sequence

from bhvit_seg.errors import UserError

DESCRIPTION = (
    'Lists the packed models that the package brings: what they find, at which ground sampling '
    'distance, and how well on images that they have not seen. `predict` and `predict-raster` take '
    'their names as --model. With a NAME, prints its card: data, licence, scores, failures.')
EXAMPLES = ('bhvit-seg models', 'bhvit-seg models roads-1m',
            'bhvit-seg models --stac roads-1m')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', nargs='?', metavar='NAME', help='print the card of this model')
    parser.add_argument('--stac', action='store_true',
                        help='print its item of the STAC Machine Learning Model extension, JSON')


def run(args: argparse.Namespace) -> int:
    from bhvit_seg.shipped import model_card, shipped_models

    if args.stac:
        if args.name not in shipped_models():
            raise UserError(f'--stac of {args.name}: expected one of '
                            f'{", ".join(shipped_models()) or "none so far"}')
        from bhvit_seg.native.stac import model_item

        print(json.dumps(model_item(args.name), indent=2, ensure_ascii=False))
        return 0
    if args.name is not None:
        print(plain_text(model_card(args.name)))
        return 0
    rows = [('name', 'metres a pixel', 'mean IoU', 'MB', 'what it finds')]
    for name, entry in shipped_models().items():
        distance = entry['ground_sampling_distance']
        rows.append((name, '-' if distance is None else f'{distance:g}',
                     f'{entry["scores"]["mIoU"]:.1f}', f'{entry["bytes"] / 1e6:.1f}',
                     f'{entry["title"]} ({", ".join(entry["classes"])})'))
    if len(rows) == 1:
        print('no models are shipped with this version: `bhvit-seg export` packs your own')
        return 0
    print('\n'.join(aligned(rows)))
    return 0


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines of which each column begins at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ['  '.join(f'{cell:<{width}}' for cell, width in zip(row, widths)).rstrip()
            for row in rows]


def plain_text(markdown: str) -> str:
    """Return Markdown, as cards are written, without its marks: links as text (URL), tables in
    columns, neither images nor comments."""
    text = re.sub(r'<!--.*?-->|!\[.*?\]\(.*?\)', '', markdown, flags=re.DOTALL)
    text = re.sub(r'\[([^]]+)\]\(([^)]+)\)', r'\1 (\2)', text)
    text = re.sub(r'^#+ +', '', text, flags=re.MULTILINE).replace('**', '').replace('`', '')

    def table(match: re.Match) -> str:
        rows = [[cell.strip() for cell in line.strip(' |').split('|')]
                for line in match[0].splitlines() if not re.fullmatch(r'[|: -]*', line)]
        return '\n'.join(aligned(rows)) + '\n'

    text = re.sub(r'(?:^\|.*\n)+', table, text, flags=re.MULTILINE)
    return re.sub(r'\n{3,}', '\n\n', text).strip()
