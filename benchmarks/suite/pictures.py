"""What the networks of a suite make of a few images, side by side.

``pictures.png`` has a line for each image: the image, its labels, and what each row's first run
makes of it. ``predictions.png`` shows the networks' maps alone, so that it can be shown where
neither images nor labels may.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from benchmarks.suite.runs import Run
from bhvit_seg.datasets.image_io import write_labels
from bhvit_seg.inference.contact_sheet import SheetRow, write_contact_sheet
from bhvit_seg.inference.torch_predictor import TorchPredictor
from bhvit_seg.training.trained import find_palette

COUNT = 4
# Of an image the middle is shown, so many pixels of it at most, on so many pixels of the sheet.
LARGEST, SIDE = 512, 200
UNLABELLED = (128, 128, 128)


def write_pictures(title: str, runs: Sequence[Run], folder: Path) -> None:
    """Write ``pictures.png`` and ``predictions.png`` of the first finished run of each row.

    What a run made of an image is kept in its folder and made again only for another checkpoint.

    Args:
        title: What stands above.
        runs: The runs of a suite.
        folder: Where the pictures go.
    """
    firsts: dict[str, Run] = {}
    for run in runs:
        if run.scores is not None:
            firsts.setdefault(run.row.name, run)
    if not firsts:
        return
    cfg = Config.fromfile(str(next(iter(firsts.values())).config))
    scenes = _load_scenes(cfg)
    palette = np.asarray(find_palette(cfg, None, len(next(iter(runs)).row.classes)), np.uint8)
    found_by_run = [_predict(run, [scene['path'] for scene in scenes]) for run in firsts.values()]
    lines, predictions = [], []
    for scene, *maps in zip(scenes, *found_by_run):
        labels = scene['labels']
        truth = np.where((labels < len(palette))[..., None],
                         palette[np.minimum(labels, len(palette) - 1)],
                         np.array(UNLABELLED, np.uint8))
        lines.append(SheetRow([scene['image'], truth, *(palette[found] for found in maps)],
                              scene['path'].stem))
        predictions.append(SheetRow([palette[found] for found in maps], [
            f'{percent_right(found, labels, len(palette)):.0f} % right' for found in maps]))
    write_contact_sheet(folder / 'pictures.png', ('image', 'labels', *firsts), lines, title)
    write_contact_sheet(folder / 'predictions.png', tuple(firsts), predictions, title)


def percent_right(found: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """The share of the labelled pixels that are right; NaN where none is labelled."""
    right = (found == labels)[labels < classes]
    return 100 * float(right.mean()) if right.size else float('nan')


def _load_scenes(cfg: Config) -> list[dict[str, Any]]:
    """Return path, RGB picture and labels, as shown, of images spread over the test set."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, COUNT).round().astype(int))
    scenes = []
    for index in map(int, chosen):
        results = dataset[index]
        labels = results['data_samples'].gt_sem_seg.data[0].numpy().astype(np.uint8)
        pixels = results['inputs'][:3].float().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels[..., ::-1]).resize(labels.shape[::-1])
        scenes.append({'path': Path(dataset.get_data_info(index)['img_path']),
                       'image': _shown(np.asarray(image), Image.Resampling.BOX),
                       'labels': _shown(labels)})
    return scenes


def _predict(run: Run, images: Sequence[Path]) -> list[np.ndarray]:
    """Return the class ids that a run gives each image, as shown."""
    predictor, maps = None, []
    for image in images:
        path = run.folder / 'pictures' / f'{image.stem}.png'
        if not path.is_file() or path.stat().st_mtime < run.checkpoint.stat().st_mtime:
            predictor = predictor or TorchPredictor(run.config, run.checkpoint)
            write_labels(path, predictor(image), predictor.palette)
        maps.append(_shown(np.asarray(Image.open(path))))
    return maps


def _shown(picture: np.ndarray, resample: int = Image.Resampling.NEAREST) -> np.ndarray:
    """Cut out the middle and bring it to the size that it is shown at."""
    height, width = picture.shape[:2]
    side = min(height, width, LARGEST)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(picture[top:top + side, left:left + side])
    return np.asarray(middle.resize((SIDE, SIDE), resample))
