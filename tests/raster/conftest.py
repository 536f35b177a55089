"""Fixtures of the tests of raster prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from native.segmentors import balance_classes, build_segmentor

CLASSES = ('meadow', 'road', 'water')
PALETTE = ((80, 160, 60), (240, 200, 40), (30, 90, 200))


@pytest.fixture(scope='session')
def map_model(tmp_path_factory, engine):
    """A function that names the packed model of a small random segmentor of three classes."""
    from bhvit_seg.native.export import fold_segmentor
    from bhvit_seg.native.file_format import write_packed

    folder = tmp_path_factory.mktemp('map_model')

    def write(channels: int = 3, color_type: str = 'color', seed: int = 0, name: str = 'random',
              **meta) -> Path:
        path = folder / f'{name}-{channels}-{color_type}-{seed}{"-".join(meta)}.bhv'
        if not path.exists():
            segmentor = build_segmentor(in_channels=channels, classes=len(CLASSES), seed=seed)
            balance_classes(segmentor)
            order = ['red', 'green', 'blue', 'further', 'more'][:channels]
            write_packed(path, fold_segmentor(segmentor), {
                'name': name, 'classes': CLASSES, 'palette': PALETTE, 'window': [64, 64],
                'channels': channels, 'channel_order': order, 'color_type': color_type,
                'test_scale': None, 'align_corners': False, 'lidar': None, **meta})
        return path

    return write


@pytest.fixture
def write_raster(tmp_path):
    """A function that writes an image with fields, roads and noise as a raster and names it."""
    import rasterio

    def write(size: tuple[int, int] = (150, 210), name: str = 'image.tif', bands: int = 3,
              dtype: str = 'uint8', seed: int = 0, alter=lambda pixels: None, **profile) -> Path:
        path = tmp_path / name
        pixels = paint(size, bands, seed)
        if dtype != 'uint8':
            pixels = (pixels.astype(np.float64) * 16).astype(dtype)
        alter(pixels)
        profile = {'driver': 'GTiff', 'crs': 'EPSG:32632', 'tiled': True, 'blockxsize': 64,
                   'blockysize': 64, 'compress': 'deflate',
                   'transform': rasterio.Affine(0.3, 0, 4e5, 0, -0.3, 5.3e6), **profile}
        with rasterio.open(path, 'w', height=size[0], width=size[1], count=bands, dtype=dtype,
                           **profile) as dataset:
            dataset.write(pixels)
        return path

    return write


def paint(size: tuple[int, int], bands: int, seed: int) -> np.ndarray:
    """Return ``(bands, h, w)`` uint8: smooth fields, bright stripes and noise, never 0."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size[0], :size[1]] / 40.
    layers = []
    for _ in range(bands):
        a, b, c, d = rng.uniform(0.3, 1.5, 4)
        field = 110 + 60 * np.sin(a * rows + b * columns) + 30 * np.sin(c * rows - d * columns)
        layers.append(field + 50 * (np.sin(0.8 * rows + 1.1 * columns) > 0.95))
    noisy = np.array(layers) + rng.normal(0, 8, (bands, *size))
    return noisy.clip(1, 255).astype(np.uint8)
