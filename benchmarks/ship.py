"""Adds a trained model to those that the package brings: ``python -m benchmarks.ship NAME ...``.

The model is exported and verified on images of its val split and scored there as packed; index and
card get what was measured. Hand-written parts of an existing card are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.scoring import Split, score
from bhvit_seg.commands.demonstration import write_contact_sheet
from bhvit_seg.errors import UserError, command
from bhvit_seg.fileio import write_json, write_text
from bhvit_seg.native import PackedSegmentor
from bhvit_seg.native.packing import export_packed
from bhvit_seg.shipped import ZOO, find_config, shipped_models

LARGEST = 10_000_000
BEGIN, END = '<!-- measured; benchmarks/ship.py writes this part -->', '<!-- end -->'
SHOWN, SIDE = 3, 256  # failures in the picture of them, and their side in pixels
REST = '\n## Where it fails\n\nNot described yet.\n'


def ship(name: str, config: str, checkpoint: str | Path, *, title: str, data: str, licence: str,
         attribution: Sequence[str], split: str, data_root: str | Path | None = None,
         precision: str = 'auto', replace: bool = False,
         failures: str | Path | None = None) -> dict[str, Any]:
    """Export, verify, score and list a model; return its entry of the index.

    Args:
        name: What users call it: lower case, digits and hyphens.
        config: The config that trained it, by name or path.
        checkpoint: Its weights.
        title: What it finds, in a few words.
        data: What it was trained on.
        licence: Licence of the data and the weights.
        attribution: Lines that have to be shown.
        split: What the val split is, in words.
        data_root: The folder of the data. Defaults to the config's.
        precision: As of ``bhvit-seg export``.
        replace: Whether the model of that name is replaced.
        failures: Picture to write (PNG or JPEG) with the images of the lowest IoU, their labels and
            predictions.

    Raises:
        UserError: Something given is wrong, the export differs from torch, or all models together
            would take more than :data:`LARGEST` bytes. Index and card are as before then.
    """
    models = shipped_models()
    if not re.fullmatch('[a-z0-9]+(-[a-z0-9]+)*', name):
        raise UserError(f'the name {name!r}: expected lower case, digits and hyphens')
    if name in models and not replace:
        raise UserError(f'a model {name} is shipped already: give --replace, or another name')
    val = Split(config, data_root)
    packed, card = ZOO / f'{name}.bhv', ZOO / f'{name}.md'
    trial = packed.with_suffix('.trial.bhv')
    try:
        report = export_packed(config, checkpoint, trial, val.paths(), precision=precision)
        print(report.summary())
        others = sum(entry['bytes'] for key, entry in models.items() if key != name)
        if others + report.total > LARGEST:
            raise UserError(f'{name} has {report.total} bytes and the other models {others}: all '
                            f'together may have {LARGEST}; try --precision 16')
        segmentor = PackedSegmentor(trial)
        scores = score(segmentor.predict, val, segmentor.meta['classes'])
        trial.replace(packed)
    finally:
        trial.unlink(missing_ok=True)
    worst = scores.pop('worst')
    if failures is not None:
        write_failures(Path(failures), name, val, segmentor, worst)
    entry = {
        'title': title, 'classes': segmentor.meta['classes'],
        'ground_sampling_distance': segmentor.meta['ground_sampling_distance'],
        'window': segmentor.meta['window'], 'file': packed.name, 'bytes': report.total,
        'sha256': hashlib.sha256(packed.read_bytes()).hexdigest(),
        'config': find_config(config).stem, 'data': data, 'licence': licence,
        'attribution': list(attribution), 'scores': {'split': split, **scores}}
    before = card.read_text('utf-8') if card.exists() else f'# {title}\n\n{BEGIN}\n{END}\n{REST}'
    head, begin, rest = before.partition(BEGIN)
    _, end, rest = rest.partition(END)
    if not (begin and end):
        raise UserError(f'{card} lacks the lines {BEGIN} and {END}: put them around what is to be '
                        'written')
    write_text(card, f'{head}{BEGIN}\n{measured(entry, worst)}\n{END}{rest}')
    write_json(ZOO / 'index.json', dict(sorted({**models, name: entry}.items())))
    return entry


def write_failures(path: Path, name: str, val: Split, segmentor: PackedSegmentor,
                   worst: Sequence[tuple[str, float]]) -> None:
    """Write a sheet of the images of the lowest IoU: image, labels, prediction."""
    colours = np.full((256, 3), 128, np.uint8)
    colours[:len(segmentor.meta['palette'])] = segmentor.meta['palette']
    places = [str(each) for each in val.paths()]
    rows = []
    for image, iou in worst[:SHOWN]:
        sample = val[places.index(image)]
        pictures = sample.image, colours[sample.labels], colours[segmentor.predict(sample.image)]
        rows.append((f'{sample.path.name}: mean IoU {iou:.1f} %', [
            np.asarray(ImageOps.pad(Image.fromarray(picture), (SIDE, SIDE), Image.Resampling.BOX,
                                    'white')) for picture in pictures]))
    write_contact_sheet(path, f'{name}: validation images of the lowest IoU',
                        ('image', 'labels', 'prediction'), rows)


def measured(entry: dict[str, Any], worst: Sequence[tuple[str, float]]) -> str:
    """Return the part of a card that is measured or given, Markdown."""
    distance = entry['ground_sampling_distance']
    scores = entry['scores']
    rows = {
        'classes': ', '.join(f'{index} {name}' for index, name in enumerate(entry['classes'])),
        'ground sampling distance': 'not known' if distance is None else f'{distance:g} m a pixel',
        'training crop': '×'.join(map(str, entry['window'] or ())) + ' pixels',
        'file': f'`{entry["file"]}`, {entry["bytes"] / 1e6:.2f} MB, SHA-256 `{entry["sha256"]}`',
        'config': f'`{entry["config"]}`', 'data': entry['data'], 'licence': entry['licence'],
        'attribution': '; '.join(entry['attribution'])}
    ious = {**scores['IoU'], 'mean': scores['mIoU']}
    return '\n'.join([
        '', '| | |', '|---|---|', *(f'| {key} | {value} |' for key, value in rows.items()), '',
        f'IoU in per cent of the packed model on {scores["split"]} ({scores["images"]} images; '
        f'{scores["aAcc"]:.1f} % of the pixels are right):', '',
        f'| {" | ".join(ious)} |', '|---' * len(ious) + '|',
        f'| {" | ".join(f"{iou:.1f}" for iou in ious.values())} |', '',
        'Images of the lowest mean IoU: ' + ', '.join(
            f'`{Path(path).name}` {iou:.1f}' for path, iou in worst) + '.', ''])


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.ship', description=__doc__)
    parser.add_argument('name', help='what users call the model')
    parser.add_argument('config', help='config that trained it')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('--data-root', metavar='DIR', help="folder of the data (default: config's)")
    for option, text in (('title', 'what it finds, in a few words'),
                         ('data', 'what it was trained on'),
                         ('licence', 'licence of data and weights'),
                         ('split', 'what its val split is, in words')):
        parser.add_argument(f'--{option}', required=True, metavar='TEXT', help=text)
    parser.add_argument('--attribution', required=True, nargs='+', metavar='TEXT',
                        help='lines that have to be shown')
    parser.add_argument('--precision', default='auto', help='as of bhvit-seg export')
    parser.add_argument('--failures', metavar='FILE',
                        help='picture of the images of the lowest IoU')
    parser.add_argument('--replace', action='store_true', help='replace the model of that name')
    args = parser.parse_args(argv)
    entry = ship(**vars(args))
    print(f'{args.name}: mean IoU {entry["scores"]["mIoU"]:.2f}; describe failures in '
          f'{ZOO / args.name}.md')


if __name__ == '__main__':
    sys.exit(main())
