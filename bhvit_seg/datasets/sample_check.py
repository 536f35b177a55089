"""The check of one image with its mask and LiDAR raster."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from bhvit_seg.datasets.image_io import COLOUR_FLAGS, read_mask, read_pixels
from bhvit_seg.datasets.masks import IGNORE, MaskEncoding, label_table
from bhvit_seg.datasets.transforms.loading import LoadLidarChannels
from bhvit_seg.errors import UserError

# The stem cuts images into patches of this side.
PATCH = 4
VALUES_SHOWN = 5


@dataclass(frozen=True)
class SampleCheck:
    """What is known about the samples of one data set.

    Attributes:
        num_classes: Labels from here on, other than 255, are out of range.
        color_type: As of the transform that loads images.
        lidar: The transform that loads rasters, if any.
        channels: Channels that the model takes, if known.
    """

    num_classes: int
    color_type: str = 'color'
    lidar: LoadLidarChannels | None = None
    channels: int | None = None

    def run(self, info: dict) -> dict:
        """Check one sample.

        Args:
            info: What the dataset knows of it: ``img_path``, ``seg_map_path``, ``lidar_path``,
                ``mask_encoding``, ``reduce_zero_label``, ``label_map``.

        Returns:
            ``problems``: a sentence each; ``ids``: pixels of each id in the file;
            ``labels``: pixels of each valid label; ``ignored``: those of none, such as
            pixels without data, which count nowhere else; ``unknown``: pixels of each value
            outside the mask encoding; ``size``: height and width of the image; ``channels``:
            [pixels, sums, sums of squares]. Plain values, fit for JSON.
        """
        finding = dict(problems=[], ids={}, labels={}, ignored=0, unknown={}, size=None,
                       channels=None)
        image, gaps = _read(finding, info['img_path'], read_pixels, self._flag()) or (None, None)
        if image is not None:
            finding['size'] = list(image.shape[:2])
        if image is not None and min(image.shape[:2]) < PATCH:
            _add(finding, f'image {info["img_path"]} is {_size(image)} pixels, '
                 f'smaller than one {PATCH}x{PATCH} patch: leave it out')
        if info.get('seg_map_path') is not None:
            self._check_mask(finding, info, image, gaps)
        lidar = self._check_lidar(finding, info, image) if self.lidar is not None else None
        if image is not None and (self.lidar is None or lidar is not None):
            self._check_channels(finding, info, image, lidar, gaps)
        return finding

    def _flag(self) -> str:
        return self.color_type if self.color_type in COLOUR_FLAGS else 'color'

    def _check_mask(self, finding: dict, info: dict, image: np.ndarray | None,
                    gaps: np.ndarray | None) -> None:
        path = info['seg_map_path']
        if not osp.exists(path):
            _add(finding, f'image {info["img_path"]} has no mask: {path} does not exist')
            return
        encoding = MaskEncoding(info.get('mask_encoding', 'ids'), info.get('classes', ()))
        mask = _read(finding, path, read_mask, None, encoding.reads_colours)
        if mask is None:
            return
        if image is not None and mask.shape[:2] != image.shape[:2]:
            _add(finding, f'mask {path} is {_size(mask)} pixels (height x width), its image '
                 f'{info["img_path"]} {_size(image)}: export both on one grid')
            return
        ids, unknown = encoding.decode(mask, gaps)
        finding['unknown'] = unknown
        if unknown:
            _add(finding, f'mask {path} has values that mask_encoding ({encoding.name}) '
                 f'does not know: {_counts(unknown)}')
        without_data = 0 if gaps is None else int(gaps.sum())
        finding['ignored'] += without_data
        counts = np.bincount(ids.ravel(), minlength=256)
        counts[IGNORE] -= sum(unknown.values()) + without_data
        table = label_table(info.get('reduce_zero_label', False), info.get('label_map'))
        outside = {}
        for value in np.flatnonzero(counts):
            number, label = int(counts[value]), int(table[value])
            finding['ids'][str(value)] = number
            if label < self.num_classes:
                finding['labels'][str(label)] = finding['labels'].get(str(label), 0) + number
            elif label == IGNORE:
                finding['ignored'] += number
            else:
                outside[str(value)] = number
        if outside:
            valid = [int(v) for v in range(256) if table[v] < self.num_classes]
            _add(finding, f'mask {path} has ids out of range: {_counts(outside)}; expected '
                 f'{valid[0]}..{valid[-1]} for {self.num_classes} classes, or 255 for ignored')

    def _check_lidar(self, finding: dict, info: dict, image: np.ndarray | None
                     ) -> np.ndarray | None:
        path = info.get('lidar_path')
        if path is None or not osp.exists(path):
            reason = 'data_prefix.lidar_path is not set' if path is None else (
                f'{path} does not exist')
            _add(finding, f'image {info["img_path"]} has no LiDAR raster: '
                 f'{reason}')
            return None
        lidar = _read(finding, path, self.lidar.load)
        if lidar is not None and image is not None and lidar.shape[:2] != image.shape[:2]:
            _add(finding, f'LiDAR raster {path} is {_size(lidar)} pixels (height x width), '
                 f'its image {info["img_path"]} {_size(image)}: resample it to the image\'s grid')
            return None
        return lidar

    def _check_channels(self, finding: dict, info: dict, image: np.ndarray,
                        lidar: np.ndarray | None, gaps: np.ndarray | None) -> None:
        parts = [image] if lidar is None else [image, lidar]
        found = sum(part.shape[2] for part in parts)
        if self.color_type in COLOUR_FLAGS and self.channels not in (None, found):
            and_raster = '' if lidar is None else ' with its LiDAR raster'
            _add(finding, f'image {info["img_path"]}{and_raster} has {found} '
                 f"channels, the config's data_preprocessor {self.channels}: make "
                 'data_preprocessor.mean, .std and backbone.in_channels fit')
        counted = None if gaps is None else (~gaps).astype(np.uint8)
        pixels = image[..., 0].size if gaps is None else int(counted.sum())
        sums, squares = [], []
        for part in parts:
            # meanStdDev takes up to four channels.
            for first in range(0, part.shape[2], 4):
                group = np.ascontiguousarray(part[..., first:first + 4])
                mean, std = (value.ravel() for value in cv2.meanStdDev(group, mask=counted))
                sums += (mean * pixels).tolist()
                squares += ((mean**2 + std**2) * pixels).tolist()
        finding['channels'] = [pixels, sums, squares]


def _read(finding: dict, path: str, reader: Callable[..., Any], *arguments) -> Any:
    """What ``reader`` returns; None, and a problem, if the file cannot be read."""
    try:
        return reader(path, *arguments)
    except UserError as error:
        _add(finding, str(error))
        return None


def _add(finding: dict, message: str) -> None:
    finding['problems'].append(message)


def _size(array: np.ndarray) -> str:
    return f'{array.shape[0]}x{array.shape[1]}'


def _counts(values: dict[str, int]) -> str:
    items: Sequence[str] = [f'{value} ({count} pixels)' for value, count in values.items()]
    more = len(items) - VALUES_SHOWN
    return ', '.join(items[:VALUES_SHOWN]) + (f' and {more} more' if more > 0 else '')
