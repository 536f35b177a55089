"""Overlays: images with the colours of their labels, as picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bhvit_seg.fileio import write_atomically


def write_overlay(path: Path, image: np.ndarray, labels: np.ndarray,
                  palette: Sequence[Sequence[int]], opacity: float) -> None:
    """Write an image with the colours of labels laid over it.

    Of an image ``(H, W, C)``, red first, the first three channels are shown, or the first as grey;
    values of another type than 8 bits from their 2nd to their 98th percentile.

    Args:
        path: The file.
        image: The image.
        labels: Class ids ``(H, W)``.
        palette: A colour (RGB) for each id.
        opacity: Weight of the colours, 0 to 1.
    """
    image = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, 2)
    if image.dtype != np.uint8:
        low, high = np.percentile(image, (2, 98))
        image = (255 * ((image - low) / max(high - low, 1e-12)).clip(0, 1)).astype(np.uint8)
    colours = np.asarray(palette, np.float32)[labels]
    blend = np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8)
    with write_atomically(path) as partial:
        Image.fromarray(blend).save(partial)
