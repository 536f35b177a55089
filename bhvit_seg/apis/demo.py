"""From nothing to a picture of predictions: what ``tools/demo.py`` does."""

from __future__ import annotations

import time
from pathlib import Path

import bhvit_seg.mm  # noqa: F401  isort: skip
import numpy as np
from PIL import Image

from bhvit_seg.apis.contact_sheet import SheetRow, write_contact_sheet
from bhvit_seg.apis.predict import predict
from bhvit_seg.apis.test import test
from bhvit_seg.apis.train import train
from bhvit_seg.datasets.synthetic import write_dataset

N_TRAIN, N_VAL, SIZE = 160, 24, 256
SHOWN = 4
_COLOURS = np.array([(25, 25, 25), (255, 255, 255)], np.uint8)
_AGREEMENT = np.array([[(25, 25, 25), (230, 60, 50)],     # truth background: right, invented
                       [(60, 120, 240), (255, 255, 255)]], np.uint8)  # truth road: missed, right


def run_demo(config: str | Path, folder: str | Path) -> Path:
    """Make a sample set, train on it, test, predict, and draw a contact sheet.

    What a killed run has finished is not done again.

    Args:
        config: The config to train.
        folder: Where everything goes.

    Returns:
        The contact sheet.
    """
    start = time.monotonic()
    folder = Path(folder)
    data, work_dir = folder / 'data', folder / 'work_dir'
    _announce(1, f'{N_TRAIN + N_VAL} synthetic aerial scenes of {SIZE}×{SIZE} pixels')
    if not (data / 'complete').exists():
        write_dataset(data, N_TRAIN, N_VAL, (SIZE, SIZE))
        (data / 'complete').touch()
    _announce(2, 'training a binary BHViT')
    train(config, data_root=data, work_dir=work_dir, resume=True)
    checkpoint = work_dir / Path((work_dir / 'last_checkpoint').read_text()).name
    _announce(3, 'testing it on scenes it has not seen')
    scores = test(config, checkpoint, data_root=data, work_dir=work_dir)
    _announce(4, 'predicting')
    images = sorted((data / 'images' / 'val').glob('*.png'))[:SHOWN]
    predict(images, config, checkpoint, folder / 'predictions', overwrite=True)
    road = scores['classes']['road']
    sheet = folder / 'contact_sheet.png'
    _draw(sheet, images, data, folder / 'predictions',
          f'binary BHViT after {time.monotonic() - start:.0f} s on the CPU: '
          f'road IoU {road["IoU"]:.1f} %, F1 {road["F1"]:.1f} % on {N_VAL} unseen scenes')
    print(f'\nroad IoU {road["IoU"]:.2f} %, mIoU {scores["summary"]["mIoU"]:.2f} %')
    print(f'look at {sheet}')
    return sheet


def _announce(step: int, what: str) -> None:
    print(f'\n== {step}/4 {what}', flush=True)


def _draw(sheet: Path, images: list[Path], data: Path, predictions: Path, headline: str) -> None:
    rows = []
    for image in images:
        truth = np.asarray(Image.open(data / 'annotations' / 'val' / image.name))
        labels = np.asarray(Image.open(predictions / 'labels' / image.name))
        both = ((truth == 1) & (labels == 1)).sum()
        either = ((truth == 1) | (labels == 1)).sum()
        rows.append(SheetRow(
            [np.asarray(Image.open(image).convert('RGB')), _COLOURS[truth], _COLOURS[labels],
             _AGREEMENT[truth, labels]],
            f'{image.stem}: road IoU {100 * both / max(either, 1):.1f} %'))
    write_contact_sheet(sheet, ('image', 'truth', 'prediction',
                                'agreement (red: invented, blue: missed)'), rows, headline)
