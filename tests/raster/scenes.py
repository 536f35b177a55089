"""What the rasters and models of the tests show and know."""

from __future__ import annotations

import numpy as np

CLASSES = ('meadow', 'road', 'water')
PALETTE = ((80, 160, 60), (240, 200, 40), (30, 90, 200))


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
