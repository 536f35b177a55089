"""Predictions of the engine, from a packed model; needs neither torch nor OpenMMLab's packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.inference.predictor import LoadedImage, Predictor
from bhvit_seg.inference.resizing import label_resized, resize
from bhvit_seg.native import PATCH, PackedSegmentor

NEEDED = ('name', 'classes', 'palette', 'channels', 'color_type', 'test_scale', 'align_corners',
          'lidar', 'window')


class PackedPredictor(Predictor):
    """A packed model of ``bhvit-seg export``; a UserError if it cannot be loaded."""

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

    def prepare(self, picture: np.ndarray) -> LoadedImage:
        return LoadedImage(picture, resize(picture, self.meta['test_scale']))

    def predict(self, image: LoadedImage) -> np.ndarray:
        size = image.pixels.shape[:2]
        if size == image.size:
            return self.segmentor.predict(image.pixels)
        cell = None if self.segmentor.divisor % PATCH else self.cell
        return label_resized(self.segmentor.logits(image.pixels), [size, image.size],
                             self.meta['align_corners'], cell)

    def scores(self, windows: np.ndarray) -> np.ndarray:
        return self.segmentor.logits(windows)

    def label(self, scores: np.ndarray) -> np.ndarray:
        return self.segmentor.label(scores)
