"""Label maps and overlays as picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_atomically

Palette = Sequence[Sequence[int]]


def write_labels(path: Path, labels: np.ndarray, palette: Palette | None) -> None:
    """Write class ids (H, W) as an 8-bit PNG whose pixel values are the ids.

    With a palette viewers show its colours; the values stay the ids.

    Raises:
        UserError: An id does not fit into 8 bits.
    """
    if labels.max(initial=0) > 255:
        raise UserError(f'{path} cannot hold the class id {labels.max()}: an 8-bit label map has '
                        'ids up to 255')
    picture = Image.fromarray(np.ascontiguousarray(labels, np.uint8))
    if palette:
        picture.putpalette(np.asarray(palette, np.uint8).tobytes())
    with write_atomically(path) as partial:
        picture.save(partial)


def write_overlay(path: Path, image: np.ndarray, labels: np.ndarray, palette: Palette,
                  opacity: float) -> None:
    """Write the image (H, W, 3), RGB, with the colours of the labels (H, W) laid over it.

    Args:
        path: The file.
        image: 8-bit image.
        labels: Class ids.
        palette: A colour (RGB) for each id.
        opacity: Share of the colours, 0 to 1.
    """
    colours = np.asarray(palette, np.float32)[labels]
    blend = np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8)
    with write_atomically(path) as partial:
        Image.fromarray(blend).save(partial)
