"""Small rasters and maps of them."""

from pathlib import Path
from typing import Any

import numpy as np

NAMES = ('ground', 'road', 'water')
PALETTE = ((200, 30, 40), (250, 210, 60), (20, 60, 220))
NODATA = 255


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


def write_raster(path: Path, bands: np.ndarray, **profile: Any) -> Path:
    """Write bands (bands, rows, columns) as a GeoTIFF; ``colorinterp`` says what they are."""
    from bhvit_seg.raster.opening import open_quietly

    count, height, width = bands.shape
    meanings = profile.pop('colorinterp', None)
    with open_quietly(path, 'w', count=count, height=height, width=width, dtype=bands.dtype,
                      **{'driver': 'GTiff', **profile}) as dataset:
        if meanings:
            dataset.colorinterp = meanings
        dataset.write(bands)
    return path


def write_map(path: Path, ids: np.ndarray, names: tuple[str, ...] = NAMES,
              palette: tuple[tuple[int, int, int], ...] = PALETTE, **profile: Any) -> Path:
    """Write class ids (rows, columns) as a map with colours and names."""
    from bhvit_seg.raster.opening import open_quietly

    write_raster(path, ids[None].astype(np.uint8), nodata=NODATA, **profile)
    with open_quietly(path, 'r+') as dataset:
        dataset.write_colormap(1, {NODATA: (0, 0, 0, 0), **{
            index: (*colour, 255) for index, colour in enumerate(palette)}})
        dataset.update_tags(1, **{f'CLASS_{index}': name for index, name in enumerate(names)})
    return path
