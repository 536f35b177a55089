"""``bhvit-seg models``: lists the models that are shipped."""

import argparse
import json

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
        print(model_card(args.name))
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
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(f'{cell:<{width}}' for cell, width in zip(row, widths)).rstrip())
    return 0
