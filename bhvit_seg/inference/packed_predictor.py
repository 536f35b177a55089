"""Prediction of image files from a packed model: what ``tools/predict.py --packed`` does.

Needs NumPy, OpenCV and Pillow: neither torch nor OpenMMLab's packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.inference.resizing import stretch
from bhvit_seg.native import PackedSegmentor

try:
    import cv2

    from bhvit_seg.datasets.image_io import append_lidar, read_image, read_lidar
    from bhvit_seg.inference.prediction import PredictionReport, predict_files
except ModuleNotFoundError as error:
    raise UserError(f'reading image files needs {error.name}: pip install opencv-python-headless '
                    'pillow') from error


class PackedPredictor:
    """A packed model, and how it wants single images.

    Args:
        packed: The packed model.
        threads: How many threads compute. Defaults to the cores that this process may use.

    Attributes:
        palette: A colour (RGB) for each class.

    Raises:
        UserError: The file is no packed model, or the engine is not built.
    """

    needed = ('palette', 'color_type', 'test_scale', 'align_corners', 'lidar')

    def __init__(self, packed: str | Path, threads: int | None = None) -> None:
        self.segmentor = PackedSegmentor(packed, threads)
        missing = [key for key in self.needed if key not in self.segmentor.meta]
        if missing:
            raise UserError(f'the packed model {packed} does not say how its images are read '
                            f'({", ".join(missing)}): export it with tools/export_packed.py')
        self.palette = self.segmentor.meta['palette']

    @property
    def reads_lidar(self) -> bool:
        """Whether the model wants a LiDAR raster with each image."""
        return self.segmentor.meta['lidar'] is not None

    def __call__(self, image: Path, lidar: Path | None = None) -> np.ndarray:
        """Return the class ids (H, W) of an image file.

        Raises:
            UserError: The file is damaged or does not suit the model.
        """
        meta = self.segmentor.meta
        pixels = read_image(str(image), meta['color_type'])
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32)
        if self.reads_lidar:
            raster = read_lidar(str(lidar), **meta['lidar'])
            pixels = append_lidar(pixels, str(image), raster, str(lidar))
        size = pixels.shape[:2]
        resized = resize(pixels, meta['test_scale'])
        resized = blue_first_to_red_first(resized)
        if resized.shape[:2] == size:
            return self.segmentor.predict(resized)
        return label(self.segmentor.logits(resized), [resized.shape[:2], size],
                     meta['align_corners'])


def blue_first_to_red_first(image: np.ndarray) -> np.ndarray:
    """Exchange the first and the third channel of ``(H, W, C)``, where there are three."""
    if image.shape[2] < 3:
        return image
    return image[..., [2, 1, 0, *range(3, image.shape[2])]]


def resize(image: np.ndarray, test_scale: dict[str, Any] | None) -> np.ndarray:
    """Resize an image ``(H, W, C)`` as the ``Resize`` of a test pipeline does.

    Args:
        image: uint8 or float32.
        test_scale: ``scale``, two sides in pixels, and ``keep_ratio``: whether the image is to
            fit into them, the longer side into the longer one, or to fill width and height.
    """
    if test_scale is None:
        return image
    height, width = image.shape[:2]
    if test_scale['keep_ratio']:
        long, short = sorted(test_scale['scale'], reverse=True)
        factor = min(long / max(height, width), short / min(height, width))
        target = int(width * factor + 0.5), int(height * factor + 0.5)
    else:
        target = tuple(test_scale['scale'])
    resized = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR)
    return resized.reshape(target[1], target[0], image.shape[2])


def label(logits: np.ndarray, sizes: Sequence[tuple[int, int]], align_corners: bool) -> np.ndarray:
    """Stretch logits bilinearly to one size after the other and return the highest class.

    One class is stretched at a time, so that the whole stack never lies in memory.

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
            scores = stretch(scores, size, align_corners)
        better = scores > best
        best[better] = scores[better]
        labels[better] = index
    return labels


def predict_packed(inputs: Sequence[str | Path], packed: str | Path, out: str | Path,
                   threads: int | None = None, **options) -> PredictionReport:
    """Predict images into ``out/labels`` and ``out/overlays`` from a packed model.

    Args:
        inputs: Images, folders or glob patterns.
        packed: The packed model.
        out: The output folder.
        threads: How many threads compute. Defaults to the cores that this process may use.
        options: See :func:`bhvit_seg.inference.prediction.predict_files`.

    Raises:
        UserError: Something given is wrong.
    """
    return predict_files(inputs, lambda: PackedPredictor(packed, threads), packed, out, **options)
