"""The interface of predictors: torch with a checkpoint, or the engine with a packed model.

Windows of image files and of rasters use the methods ``scores`` and ``label``; ``predict`` labels
an image in one piece. Channels are red, green, blue, others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_WINDOW = (512, 512)


@dataclass
class LoadedImage:
    """An image file, decoded once."""

    picture: np.ndarray  # (H, W, C) as decoded, for overlays
    pixels: np.ndarray  # (h, w, C) uint8 or float32, resized by the test pipeline, with LiDAR
    results: Mapping[str, Any] | None = None  # of mmseg's pipeline, for torch

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.shape[:2]


class Predictor:
    """A model that labels images.

    Args:
        meta: Description of the model, see :func:`bhvit_seg.native.packed_meta.describe`.
        fill: For each channel a neutral value.
        digest: Identifies the model and its settings.
    """

    # Pixels along a side of a cell; None where scores depend on the size of the image, so that
    # windows cannot be joined.
    cell: int | None = None
    batch = 1  # windows that it computes at once
    slides = False  # whether ``predict`` itself goes by windows

    def __init__(self, meta: Mapping[str, Any], fill: Sequence[float], digest: str) -> None:
        self.name: str = meta['name']
        self.classes: list[str] = list(meta['classes'])
        self.palette: list[list[int]] = meta['palette']  # RGB of each class
        self.channels = int(meta['channels'])
        self.reads_lidar: bool = meta['lidar'] is not None  # with each image
        self.eight_bit = meta['color_type'] == 'color' and not self.reads_lidar  # in training
        self.window: tuple[int, int] = tuple(meta['window'] or DEFAULT_WINDOW)  # training crop
        # Metres a pixel of the training images, if it is known.
        self.ground_sampling_distance: float | None = meta.get('ground_sampling_distance')
        self.resizes: bool = meta['test_scale'] is not None  # tested on images of another size
        self.fill = tuple(map(float, fill))
        self.digest = digest

    def load(self, image: Path, lidar: Path | None = None) -> LoadedImage:
        """Read an image file and its LiDAR raster, or raise a UserError."""
        raise NotImplementedError

    def prepare(self, picture: np.ndarray) -> LoadedImage:
        """Resize ``(H, W, 3)`` uint8, red first, like an image file that :meth:`load` reads."""
        raise NotImplementedError

    def predict(self, image: LoadedImage) -> np.ndarray:
        """Return the class ids ``(H, W)`` of an image file; a UserError if it does not fit."""
        raise NotImplementedError

    def scores(self, windows: np.ndarray) -> np.ndarray:
        """Return scores ``(B, classes, h / cell, w / cell)``, float32, of ``(B, h, w, C)``."""
        raise NotImplementedError

    def label(self, scores: np.ndarray) -> np.ndarray:
        """Return the classes ``(cell * h, cell * w)`` uint8 of upsampled ``(classes, h, w)``."""
        raise NotImplementedError

    def __call__(self, image: str | Path, lidar: str | Path | None = None) -> np.ndarray:
        """Return the class ids ``(H, W)`` of an image file; see :meth:`load`, :meth:`predict`."""
        return self.predict(self.load(Path(image), None if lidar is None else Path(lidar)))
