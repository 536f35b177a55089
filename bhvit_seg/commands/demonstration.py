"""The steps of ``bhvit-seg demo``, from synthetic data to a contact sheet of predictions."""

from __future__ import annotations

import time
import timeit
from collections.abc import Sequence
from pathlib import Path

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from bhvit_seg.datasets.synthetic import write_dataset
from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.test import test
from bhvit_seg.fileio import write_atomically
from bhvit_seg.inference.prediction import predict_files
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.torch_predictor import TorchPredictor
from bhvit_seg.native import PackedSegmentor, instruction_sets
from bhvit_seg.native.packing import ExportReport, export_packed
from bhvit_seg.training.train import train

N_TRAIN, N_VAL, SIZE = 160, 24, 256
SHOWN = 4
TIMED_ROUNDS = 20
MARGIN, HEADER = 8, 26
_COLOURS = np.array([(25, 25, 25), (255, 255, 255)], np.uint8)
_AGREEMENT = np.array([[(25, 25, 25), (230, 60, 50)],     # truth background: right, invented
                       [(60, 120, 240), (255, 255, 255)]], np.uint8)  # truth road: missed, right


def run_demo(config: str | Path, folder: str | Path) -> Path:
    """Make a sample set, train on it, test, predict, pack, and draw a contact sheet; return its
    path.

    Finished steps of an earlier run are not repeated. Without the packed engine, packing is
    omitted.
    """
    start = time.monotonic()
    folder = Path(folder)
    data, work_dir = folder / 'data', folder / 'work_dir'
    print(f'\n== 1/5 {N_TRAIN + N_VAL} synthetic aerial scenes of {SIZE}×{SIZE} pixels', flush=True)
    if not (data / 'complete').exists():
        write_dataset(data, N_TRAIN, N_VAL, (SIZE, SIZE))
        (data / 'complete').touch()
    print('\n== 2/5 training a binary BHViT', flush=True)
    train(config, data_root=data, work_dir=work_dir, resume=True)
    checkpoint = work_dir / Path((work_dir / 'last_checkpoint').read_text()).name
    print('\n== 3/5 testing it on scenes it has not seen', flush=True)
    scores = test(config, checkpoint, data_root=data, work_dir=work_dir)
    print('\n== 4/5 predicting', flush=True)
    images = sorted((data / 'images' / 'val').glob('*.png'))[:SHOWN]
    predictions = {'prediction': folder / 'predictions'}
    source = ModelSource(config=config, checkpoint=checkpoint)
    predict_files(images, source, predictions['prediction'], overwrite=True)
    road = scores['classes']['road']
    headline = (f'binary BHViT after {time.monotonic() - start:.0f} s on the CPU: '
                f'road IoU {road["IoU"]:.1f} %, F1 {road["F1"]:.1f} % on {N_VAL} unseen scenes')
    print('\n== 5/5 packing it into bits, and predicting from them', flush=True)
    try:
        instruction_sets()
    except UserError as error:
        print(f'left out: {error}')
    else:
        packed, predictions['from bits'] = folder / 'model.bhv', folder / 'predictions_from_bits'
        report = export_packed(config, checkpoint, packed, images)
        print(report.summary())
        predict_files(images, ModelSource(packed), predictions['from bits'], overwrite=True)
        comparison = _compare_cost(config, checkpoint, report, images)
        headline += f'; {comparison}'
        print(comparison)
    sheet = folder / 'contact_sheet.png'
    write_contact_sheet(sheet, headline, (
        'image', 'truth', *predictions, 'agreement (red: invented, blue: missed)'),
        [_row(image, data, predictions) for image in images])
    print(f'\nroad IoU {road["IoU"]:.2f} %, mIoU {scores["summary"]["mIoU"]:.2f} %')
    print(f'look at {sheet}')
    return sheet


def _compare_cost(config: str | Path, checkpoint: Path, report: ExportReport, images: list[Path]
                  ) -> str:
    predictor = TorchPredictor(config, checkpoint, 'cpu')
    segmentor = PackedSegmentor(report.path, torch.get_num_threads())
    image = predictor.load(images[0])
    in_torch, packed = (1e3 * min(timeit.repeat(run, number=1, repeat=TIMED_ROUNDS)) for run in (
        lambda: predictor.predict(image), lambda: segmentor.predict(image.pixels)))
    return (f'from bits: {report.total / 1e6:.2f} MB instead of '
            f'{report.float32_bytes / 1e6:.2f} MB of float32, {packed:.1f} ms an image instead of '
            f'{in_torch:.0f} ms in torch ({segmentor.threads} threads)')


def _row(image: Path, data: Path, predictions: dict[str, Path]) -> tuple[str, list[np.ndarray]]:
    """Return the caption and the pictures of an image's row."""
    folders = data / 'annotations' / 'val', *(folder / 'labels' for folder in predictions.values())
    maps = [np.asarray(Image.open(folder / image.name)) for folder in folders]
    truth, last = maps[0] == 1, maps[-1] == 1
    overlap = (truth & last).sum() / max((truth | last).sum(), 1)
    return (f'{image.stem}: road IoU {100 * overlap:.1f} %',
            [np.asarray(Image.open(image).convert('RGB')), *(_COLOURS[each] for each in maps),
             _AGREEMENT[maps[0], maps[-1]]])


def write_contact_sheet(path: Path, headline: str, titles: Sequence[str],
                        rows: Sequence[tuple[str, Sequence[np.ndarray]]]) -> None:
    """Write a PNG of captioned rows of pictures, RGB ``(H, W, 3)`` of one size, under titles."""
    font, colour = ImageFont.load_default(13), (30, 30, 30)
    height, width = rows[0][1][0].shape[:2]
    lefts = [MARGIN + column * (width + MARGIN) for column in range(len(titles))]
    sheet = Image.new('RGB', (lefts[-1] + width + MARGIN,
                              2 * HEADER + len(rows) * (height + HEADER) + MARGIN), 'white')
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 6), headline, colour, font)
    for left, title in zip(lefts, titles):
        draw.text((left, HEADER + 6), title, colour, font)
    for index, (caption, pictures) in enumerate(rows):
        top = 2 * HEADER + index * (height + HEADER)
        for left, picture in zip(lefts, pictures):
            sheet.paste(Image.fromarray(picture), (left, top))
        draw.text((MARGIN, top + height + 4), caption, colour, font)
    with write_atomically(path) as partial:
        sheet.save(partial)
