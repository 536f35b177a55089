"""Resizing of images as mmcv's ``Resize`` does it, and of scores as torch's ``interpolate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def upsample_rows(scores: np.ndarray, rows: int, align_corners: bool = False) -> np.ndarray:
    """Resize float32 ``(..., h, w)`` bilinearly to ``(..., rows, w)``."""
    source = scores.shape[-2]
    if align_corners:
        at = np.arange(rows) * ((source - 1) / max(rows - 1, 1))
    else:
        at = np.maximum((np.arange(rows) + 0.5) * (source / rows) - 0.5, 0)
    low = at.astype(np.intp)
    share = (at - low).astype(np.float32)[:, None]
    high = np.minimum(low + 1, source - 1)
    return (1 - share) * scores[..., low, :] + share * scores[..., high, :]


def label_resized(logits: np.ndarray, sizes: Sequence[tuple[int, int]], align_corners: bool,
                  cell: int | None = None) -> np.ndarray:
    """Resize logits ``(classes, h, w)`` bilinearly to each size in turn; return uint8 classes.

    With ``cell`` they are upsampled so many times and cut to the first size, instead of stretched.
    """
    first, *others = sizes
    whole = first if cell is None else tuple(cell * side for side in logits.shape[1:])
    best = np.full(sizes[-1], -np.inf, np.float32)
    labels = np.zeros(sizes[-1], np.uint8)

    def stretch(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        rows = upsample_rows(scores, size[0], align_corners)
        return upsample_rows(rows.T, size[1], align_corners).T

    for index, scores in enumerate(logits):
        scores = stretch(scores, whole)[:first[0], :first[1]]
        for size in others:
            scores = stretch(scores, size)
        better = scores > best
        best[better] = scores[better]
        labels[better] = index
    return labels


def resize(image: np.ndarray, test_scale: dict[str, Any] | None) -> np.ndarray:
    """Resize an image ``(H, W, C)``, uint8 or float32, like the ``Resize`` of a test pipeline.

    ``test_scale`` has ``scale``, two sides in pixels, and ``keep_ratio``: fit into them, the longer
    side into the longer one, instead of filling width and height.
    """
    if test_scale is None:
        return image
    import cv2

    height, width = image.shape[:2]
    target = tuple(test_scale['scale'])
    if test_scale['keep_ratio']:
        short, long = sorted(target)
        factor = min(long / max(height, width), short / min(height, width))
        target = int(width * factor + 0.5), int(height * factor + 0.5)
    resized = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR)
    return resized.reshape(target[1], target[0], image.shape[2])
