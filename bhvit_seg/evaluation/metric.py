"""Per-class scores of a test, and the label maps it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import METRICS

from bhvit_seg.datasets.image_io import write_labels
from bhvit_seg.evaluation.scores import score_areas


@METRICS.register_module()
class PerClassMetric(IoUMetric):
    """``IoUMetric`` that keeps the scores of every class and names predictions after images.

    Areas are added up in integers, so large sets lose no pixels; scores are those of
    :func:`bhvit_seg.evaluation.scores.score_areas`.

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
        areas = (sum(np.rint(areas.numpy()).astype(np.int64) for areas in kind)
                 for kind in zip(*results))
        summary, self.classes = score_areas(*areas, self.dataset_meta['classes'])
        return summary
