"""Scores on the val split of a config, of whatever labels an image: an engine, bits, torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from bhvit_seg.datasets.image_io import swap_red_and_blue
from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.scores import score_areas
from bhvit_seg.training.config import explain_config_errors, load_config, require_settings


@dataclass
class Sample:
    """An image ``(H, W, C)``, red first, and its labels ``(H, W)``, 255 where there are none."""

    path: Path
    image: np.ndarray
    labels: np.ndarray


class Split:
    """The images of a split of a config, as its test pipeline loads them.

    Args:
        config: The config file.
        data_root: The folder of the data. Defaults to the config's.
        split: ``'val'`` or ``'train'``; of the latter only images are read, for calibration.

    Attributes:
        dataset: The dataset.
        classes: Their names.

    Raises:
        UserError: The config has no such split, or its images are missing.
    """

    def __init__(self, config: str | Path, data_root: str | Path | None = None,
                 split: str = 'val') -> None:
        cfg = load_config(config, None, data_root)
        require_settings(cfg, config, 'val_dataloader', f'{split}_dataloader')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        settings = {**cfg[f'{split}_dataloader'].dataset,
                    'pipeline': cfg.val_dataloader.dataset.pipeline}
        with explain_config_errors():
            self.dataset: Any = DATASETS.build(settings)
        if not len(self.dataset):
            raise UserError(f'the {split} split of {config} has no images in '
                            f'{settings.get("data_root")}: give the folder with --data-root')
        self.classes: list[str] = list(self.dataset.metainfo['classes'])

    def paths(self) -> list[Path]:
        """Return the image files."""
        return [Path(self.dataset.get_data_info(i)['img_path']) for i in range(len(self.dataset))]

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self.dataset)):
            yield self[index]

    def __getitem__(self, index: int) -> Sample:
        results = self.dataset[index]
        sample = results['data_samples']
        image = swap_red_and_blue(results['inputs'].numpy().transpose(1, 2, 0))
        labels = sample.gt_sem_seg.data[0].numpy().astype(np.uint8)
        if image.shape[:2] != labels.shape:
            raise UserError(f'the test pipeline resizes {sample.img_path} to '
                            f'{image.shape[1]}×{image.shape[0]} pixels, and its labels have '
                            f'{labels.shape[1]}×{labels.shape[0]}: give a config that does not')
        return Sample(Path(sample.img_path), np.ascontiguousarray(image), labels)


def score(predict: Callable[[np.ndarray], np.ndarray], samples: Iterable[Sample],
          classes: list[str]) -> dict[str, Any]:
    """Label images and compare.

    Args:
        predict: From ``(H, W, C)``, red first, to class ids ``(H, W)``.
        samples: The images.
        classes: Names of the classes.

    Returns:
        ``images``, ``mIoU``, ``aAcc``, ``IoU`` by class; in per cent. ``worst``: the five images of
        the lowest mean IoU, the lowest first, each with its path and that IoU.
    """
    count = len(classes)
    total = np.zeros((count, count), np.int64)
    by_image = []
    for sample in samples:
        known = sample.labels < count
        pairs = sample.labels[known].astype(np.int64) * count + predict(sample.image)[known]
        confusion = np.bincount(pairs, minlength=count ** 2).reshape(count, count)
        total += confusion
        by_image.append((score_confusion(confusion, classes)[0]['mIoU'], str(sample.path)))
    summary, scores = score_confusion(total, classes)
    return {'images': len(by_image), 'mIoU': summary['mIoU'], 'aAcc': summary['aAcc'],
            'IoU': {name: scores[name]['IoU'] for name in classes},
            'worst': [(path, iou) for iou, path in sorted(by_image)[:5]]}


def score_confusion(confusion: np.ndarray, classes: list[str]) -> tuple[dict, dict]:
    """Return :func:`score_areas` of pixels by label (rows) and prediction (columns)."""
    hits, predicted, labelled = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return score_areas(hits, predicted + labelled - hits, predicted, labelled, classes)
