"""Maps to write, and the strips they are written in."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

CLASSES = ('ground', 'röad', 'water <deep> & "wide"')
PALETTE = ((200, 30, 40), (250, 210, 60), (20, 60, 220))
SIZE = (1300, 1100)


def place(size=SIZE, crs=None, transform=None, gcps=((), None), rpcs=None) -> SimpleNamespace:
    """What is asked of the raster that was mapped."""
    import rasterio

    return SimpleNamespace(
        height=size[0], width=size[1], crs=crs and rasterio.crs.CRS.from_user_input(crs),
        transform=transform or rasterio.Affine.identity(), gcps=gcps, rpcs=rpcs)


def draw_labels() -> np.ndarray:
    """Regions of three classes, a border without data, and single pixels of both."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, len(CLASSES), (SIZE[0] // 20, SIZE[1] // 20), np.uint8)
    ids = np.kron(coarse, np.ones((20, 20), np.uint8))
    ids[:300, :150] = 255
    ids[rng.random(SIZE) < 0.01] = 255
    ids[rng.random(SIZE) < 0.01] = 1
    return ids


def strips(ids: np.ndarray, rows: int = 512) -> Iterator[tuple[int, np.ndarray]]:
    """Cut ``(..., h, w)`` into strips."""
    for top in range(0, ids.shape[-2], rows):
        yield top, ids[..., top:top + rows, :]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
