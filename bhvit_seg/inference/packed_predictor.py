"""Predictions of the engine, from a packed model.

Needs NumPy, and OpenCV and Pillow to read image files: neither torch nor OpenMMLab's packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.inference.predictor import LoadedImage, Predictor
from bhvit_seg.inference.resizing import upsample
from bhvit_seg.native import PATCH, PackedSegmentor

NEEDED = ('name', 'classes', 'palette', 'channels', 'color_type', 'test_scale', 'align_corners',
          'lidar', 'window')


class PackedPredictor(Predictor):
    """A packed model, see :class:`~bhvit_seg.inference.predictor.Predictor`.

    Args:
        packed: A file that ``bhvit-seg export`` wrote.
        threads: How many threads compute. Defaults to the cores that this process may use.

    Raises:
        UserError: The file is not a packed model, or the engine is not built.
    """

    def __init__(self, packed: str | Path, threads: int | None = None) -> None:
        self.segmentor = PackedSegmentor(packed, threads)
        meta = self.meta = self.segmentor.meta
        missing = [key for key in NEEDED if key not in meta]
        if missing:
            raise UserError(f'the packed model {packed} does not say how its images are read '
                            f'({", ".join(missing)}): export it with `bhvit-seg export`')
        super().__init__(meta, self.segmentor.mean, self.segmentor.digest)
        self.cell = None if meta['align_corners'] else PATCH

    def load(self, image: Path, lidar: Path | None = None) -> LoadedImage:
        from bhvit_seg.datasets.image_io import read_pixels
        from bhvit_seg.datasets.lidar import append_lidar, read_lidar

        picture = pixels = read_pixels(str(image), self.meta['color_type'])[0]
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32)
        if self.reads_lidar:
            raster = read_lidar(str(lidar), **self.meta['lidar'])
            pixels = append_lidar(pixels, str(image), raster, str(lidar))
        return LoadedImage(picture, resize(pixels, self.meta['test_scale']))

    def predict(self, image: LoadedImage) -> np.ndarray:
        size = image.pixels.shape[:2]
        if size == image.size:
            return self.segmentor.predict(image.pixels)
        return label_resized(self.segmentor.logits(image.pixels), [size, image.size],
                             self.meta['align_corners'])

    def scores(self, windows: np.ndarray) -> np.ndarray:
        return self.segmentor.logits(windows)

    def label(self, scores: np.ndarray) -> np.ndarray:
        return self.segmentor.label(scores)


def resize(image: np.ndarray, test_scale: dict[str, Any] | None) -> np.ndarray:
    """Resize an image ``(H, W, C)`` as the ``Resize`` of a test pipeline does.

    Args:
        image: uint8 or float32.
        test_scale: ``scale``, two sides in pixels, and ``keep_ratio``: whether the image is to
            fit into them, the longer side into the longer one, or to fill width and height.
    """
    if test_scale is None:
        return image
    import cv2

    height, width = image.shape[:2]
    if test_scale['keep_ratio']:
        long, short = sorted(test_scale['scale'], reverse=True)
        factor = min(long / max(height, width), short / min(height, width))
        target = int(width * factor + 0.5), int(height * factor + 0.5)
    else:
        target = tuple(test_scale['scale'])
    resized = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR)
    return resized.reshape(target[1], target[0], image.shape[2])


def label_resized(logits: np.ndarray, sizes: Sequence[tuple[int, int]], align_corners: bool
                  ) -> np.ndarray:
    """Resize logits bilinearly to one size after the other and return the highest class.

    One class is resized at a time, so that the whole stack is never in memory.

    Args:
        logits: ``(classes, h, w)``.
        sizes: Heights and widths.
        align_corners: As in ``torch.nn.functional.interpolate``.

    Returns:
        ``(H, W)`` uint8 of the last size.
    """
    best = np.full(sizes[-1], -np.inf, np.float32)
    labels = np.zeros(sizes[-1], np.uint8)
    for index, scores in enumerate(logits):
        for size in sizes:
            scores = upsample(scores, size, align_corners)
        better = scores > best
        best[better] = scores[better]
        labels[better] = index
    return labels
