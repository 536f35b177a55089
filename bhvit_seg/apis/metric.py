"""Per-class scores of a test, and the label maps it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bhvit_seg.mm  # noqa: F401  isort: skip
import numpy as np
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import METRICS

from bhvit_seg.apis.pictures import write_labels

COLUMNS = ('IoU', 'F1', 'Precision', 'Recall')


@METRICS.register_module()
class PerClassMetric(IoUMetric):
    """``IoUMetric`` that keeps the scores of every class and names predictions after images.

    Areas are added up in integers, so large sets lose no pixels. F1 is 2 I / (P + L), with the
    intersection I and the predicted and labelled areas P and L: 0, not undefined, for a class
    that is never predicted. Scores of a class that occurs nowhere are NaN and left out of means.

    Args:
        label_dir (str, optional): Write predicted labels into this folder, in the ids of the
            annotation files, as ``<path below the image folder>.png``. Defaults to None.
        image_dir (str, optional): The image folder. Defaults to the folder of each image.
        **kwargs: As for ``IoUMetric``.
    """

    def __init__(self, *args, label_dir: str | None = None, image_dir: str | None = None,
                 **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.label_dir = label_dir
        self.image_dir = image_dir
        self.classes: dict[str, dict[str, float]] = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the areas of a batch and write its predictions."""
        super().process(data_batch, data_samples)
        if self.label_dir is None:
            return
        for sample in data_samples:
            labels = sample['pred_sem_seg']['data'].cpu().numpy()
            labels = labels.reshape(labels.shape[-2:])
            path = Path(sample['img_path'])
            name = Path(path.name)
            if self.image_dir and Path(self.image_dir) in path.parents:
                name = path.relative_to(self.image_dir)
            shift = int(sample.get('reduce_zero_label') or 0)
            palette = self.dataset_meta.get('palette')
            write_labels(Path(self.label_dir) / name.with_suffix('.png'), labels + shift,
                         palette and [[0, 0, 0]] * shift + list(palette))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return ``aAcc``, ``mIoU``, ``mFscore`` and ``mAcc`` in per cent; keep the classes'."""
        intersect, union, predicted, labelled = (
            sum(np.rint(areas.numpy()).astype(np.int64) for areas in kind)
            for kind in zip(*results))
        scores = {
            'IoU': percent(intersect, union),
            'F1': percent(2 * intersect, predicted + labelled),
            'Precision': percent(intersect, predicted),
            'Recall': percent(intersect, labelled),
        }
        self.classes = {
            name: {column: float(scores[column][label]) for column in COLUMNS}
            for label, name in enumerate(self.dataset_meta['classes'])}
        return {
            'aAcc': float(percent(intersect.sum(), labelled.sum())),
            'mIoU': float(np.nanmean(scores['IoU'])),
            'mFscore': float(np.nanmean(scores['F1'])),
            'mAcc': float(np.nanmean(scores['Recall'])),
        }


def percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return 100 part / whole, NaN where the whole is 0."""
    with np.errstate(invalid='ignore', divide='ignore'):
        return 100 * np.asarray(part, np.float64) / np.asarray(whole, np.float64)


def class_table(classes: dict[str, dict], summary: dict) -> str:
    """Lay out the scores of all classes, and their means, as a table for the terminal.

    None stands for a score that is not defined.
    """
    width = max(map(len, ('mean', *classes)))
    rule = '-' * (width + 11 * len(COLUMNS))
    means = {'IoU': summary['mIoU'], 'F1': summary['mFscore'], 'Recall': summary['mAcc']}

    def row(name: str, scores: dict) -> str:
        cells = (scores.get(column) for column in COLUMNS)
        return f'{name:<{width}}' + ''.join(
            f'{"-":>11}' if cell is None else f'{cell:>11.2f}' for cell in cells)

    lines = [' ' * width + ''.join(f'{column:>11}' for column in COLUMNS), rule]
    lines += [row(name, scores) for name, scores in classes.items()]
    lines += [rule, row('mean', means)]
    lines.append(f'pixel accuracy {summary["aAcc"]:.2f} %')
    return '\n'.join(lines)
