"""LiDAR rasters beside images; works without torch and OpenMMLab's packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bhvit_seg.datasets.image_io import equals_declared, read_raster
from bhvit_seg.errors import UserError

LIDAR_SUFFIXES = ('.tif', '.tiff', '.npy', '.png')  # in order of preference


def read_lidar(path: str, channels: Sequence[int] | None = None, fill: float = 0.0,
               nodata: float | None = None, backend_args: dict | None = None) -> np.ndarray:
    """Read LiDAR channels as (H, W, C) float32 without gaps.

    Args:
        path: See :func:`read_raster`.
        channels: Indices of channels, from 0; all by default.
        fill: Replaces NaN, infinity and nodata.
        nodata: A nodata value besides the one that a GeoTIFF declares.

    Raises:
        UserError: As for :func:`read_raster`, or a channel is missing.
    """
    raster, declared = read_raster(path, backend_args)
    if channels is not None:
        wrong = [c for c in channels if not 0 <= c < raster.shape[2]]
        if wrong:
            raise UserError(f'LiDAR raster {path} has no channel {wrong[0]}: it has '
                            f'{raster.shape[2]}, numbered from 0; correct '
                            'LoadLidarChannels.channels')
        raster = raster[..., channels]
    values = raster.astype(np.float32)
    values[~np.isfinite(values)] = fill
    for value in (declared, nodata):
        if value is not None:
            values[equals_declared(raster, value)] = fill
    return values


def append_lidar(image: np.ndarray, image_path: str, raster: np.ndarray, raster_path: str
                 ) -> np.ndarray:
    """Return image and raster, which must have one size, as one float32 array (H, W, C)."""
    if raster.shape[:2] != image.shape[:2]:
        raise UserError(
            f'LiDAR raster {raster_path} is {raster.shape[0]}x{raster.shape[1]} pixels (height x '
            f'width), its image {image_path} {image.shape[0]}x{image.shape[1]}: resample it to '
            'the grid of the image')
    image = image.reshape(*image.shape[:2], -1).astype(np.float32)
    return np.concatenate([image, raster], axis=2)


def find_raster(folder: str | Path, name: str | Path) -> Path:
    """Return the LiDAR raster of an image, by its path below its folder without suffix."""
    for suffix in LIDAR_SUFFIXES:
        raster = Path(folder) / f'{name}{suffix}'
        if raster.is_file():
            return raster
    raise UserError(f'no raster {Path(folder) / name} ({", ".join(LIDAR_SUFFIXES)}): every image '
                    'needs one of the same name in --lidar')
