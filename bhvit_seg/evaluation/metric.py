"""Scores of each class in validation and tests, and label maps that a test writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import METRICS

from bhvit_seg.datasets.image_io import write_labels
from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.scores import class_table, mean_of_defined, score_areas, without_nan


@METRICS.register_module()
class PerClassMetric(IoUMetric):
    """``IoUMetric`` that keeps the scores of every class and names predictions after images.

    Areas are summed in integers; all scores of :func:`~bhvit_seg.evaluation.scores.score_areas` are
    computed, whatever ``iou_metrics`` names. A class that is never predicted has an F1 of 0, where
    ``IoUMetric`` leaves it out of the mean.

    Args:
        label_dir: Write predicted labels into this folder, in the ids of the annotation files, as
            ``<path below the image folder>.png``.
        image_dir: The image folder. Defaults to the folder of each image.
        log_classes: Write the table of classes to the log.
        **kwargs: As for ``IoUMetric``, but ``beta`` and ``nan_to_num``.
    """

    def __init__(self, *args, label_dir: str | None = None, image_dir: str | None = None,
                 log_classes: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for name, only in (('beta', 1), ('nan_to_num', None)):
            if getattr(self, name) != only:
                raise UserError(f'{name} of PerClassMetric is {getattr(self, name)}: it computes '
                                'F1 and leaves undefined scores out of means; leave the argument '
                                'out')
        self.label_dir = label_dir
        self.image_dir = image_dir
        self.log_classes = log_classes
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
        """Return means over classes in per cent, none with ``format_only``, and keep each class."""
        if self.format_only:
            return {}
        areas = (sum(np.rint(areas.numpy()).astype(np.int64) for areas in kind)
                 for kind in zip(*results))
        summary, self.classes = score_areas(*areas, self.dataset_meta['classes'])
        if self.log_classes:
            classes = {name: without_nan(scores) for name, scores in self.classes.items()}
            print_log(f'scores of each class in per cent:\n{class_table(classes, summary)}',
                      'current')
        # The names that mmseg's metric has for them, which save_best may name.
        return {**summary, 'mRecall': summary['mAcc'], 'mDice': summary['mFscore'],
                'mPrecision': mean_of_defined([s['Precision'] for s in self.classes.values()])}
