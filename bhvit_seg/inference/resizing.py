"""Bilinear upsampling in NumPy, as ``torch.nn.functional.interpolate`` does it."""

from __future__ import annotations

import numpy as np


def upsample_rows(scores: np.ndarray, rows: int, align_corners: bool = False) -> np.ndarray:
    """Resize ``(..., h, w)`` bilinearly to ``(..., rows, w)``.

    Args:
        scores: float32.
        rows: The new height.
        align_corners: As in ``torch.nn.functional.interpolate``.
    """
    source = scores.shape[-2]
    if align_corners:
        at = np.arange(rows) * ((source - 1) / max(rows - 1, 1))
    else:
        at = np.maximum((np.arange(rows) + 0.5) * (source / rows) - 0.5, 0)
    low = at.astype(np.intp)
    share = (at - low).astype(np.float32)[:, None]
    high = np.minimum(low + 1, source - 1)
    return (1 - share) * scores[..., low, :] + share * scores[..., high, :]


def upsample(scores: np.ndarray, size: tuple[int, int], align_corners: bool = False) -> np.ndarray:
    """Resize ``(..., h, w)`` bilinearly to ``(..., *size)``, rows first."""
    high = upsample_rows(scores, size[0], align_corners)
    return upsample_rows(high.swapaxes(-1, -2), size[1], align_corners).swapaxes(-1, -2)
