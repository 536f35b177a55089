"""``bhvit-seg score-raster``: scores a predicted raster against labels."""

import argparse
from pathlib import Path

from bhvit_seg.errors import UserError

DESCRIPTION = (
    'Scores a label raster against another one: IoU and F1 of every class and the confusion '
    'matrix, as tables and as JSON.')
EXAMPLES = (
    'bhvit-seg score-raster map.tif labels.tif --out scores.json',
    'bhvit-seg score-raster map.tif labels.tif --label-map 2:1 3:255 --ignore-nodata')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('prediction', metavar='PRED', help='predicted label raster')
    parser.add_argument('labels', metavar='LABEL', help='raster of true labels, pixel on pixel')
    parser.add_argument('--classes', nargs='+', metavar='NAME',
                        help='names of the ids 0, 1, ... (default: those in PRED)')
    parser.add_argument('--ignore', type=int, default=255, metavar='ID',
                        help='what means no label in LABEL, besides nodata (default: 255)')
    parser.add_argument('--label-map', nargs='+', metavar='OLD:NEW', default=[],
                        help='other ids for those in LABEL')
    parser.add_argument('--ignore-nodata', action='store_true',
                        help='leave out pixels that have no prediction (default: they are wrong)')
    parser.add_argument('--out', metavar='JSON', help='file for the scores')


def parse_label_map(pairs: list[str]) -> dict[int, int]:
    """Return the new ids by old id; a UserError names a pair that is not ``OLD:NEW``."""
    label_map = {}
    for pair in pairs:
        old, _, new = pair.partition(':')
        try:
            label_map[int(old)] = int(new)
        except ValueError as error:
            raise UserError(f'--label-map {pair} is no pair of ids: write OLD:NEW, such as 3:1'
                            ) from error
    return label_map


def run(args: argparse.Namespace) -> None:
    from bhvit_seg.evaluation.scores import class_table, confusion_table
    from bhvit_seg.fileio import make_output_folder, write_json
    from bhvit_seg.raster.scoring import score_raster

    label_map = parse_label_map(args.label_map)
    if args.out is not None:
        if Path(args.out).is_dir():
            raise UserError(f'--out {args.out} is a folder: give a file such as '
                            f'{Path(args.out) / "scores.json"}')
        make_output_folder(Path(args.out).parent, '--out')
    result = score_raster(args.prediction, args.labels, args.classes, args.ignore, label_map,
                          args.ignore_nodata, progress=True)
    print(class_table(result['classes'], result['summary']))
    print()
    rows = {name: [*counts, none] for name, counts, none in zip(
        result['classes'], result['confusion'], result['unpredicted'])}
    print(confusion_table(rows, [*result['classes'], 'nodata']))
    print(f'{result["unlabelled"]} pixels without a label are not scored; those without a '
          f'prediction (nodata) {"are not either" if args.ignore_nodata else "count as wrong"}')
    if args.out is not None:
        write_json(args.out, result)

