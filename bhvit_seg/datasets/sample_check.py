"""The check of one image with its mask and LiDAR raster."""

from __future__ import annotations

import os.path as osp
from dataclasses import dataclass

import cv2
import numpy as np

from bhvit_seg.datasets.image_io import COLOUR_FLAGS, read_mask, read_pixels
from bhvit_seg.datasets.lidar import append_lidar
from bhvit_seg.datasets.masks import IGNORE, MaskEncoding, label_table
from bhvit_seg.datasets.transforms.loading import LoadLidarChannels
from bhvit_seg.errors import UserError, shortened

PATCH = 4  # the stem cuts images into patches of this side
VALUES_SHOWN = 5


@dataclass(frozen=True)
class SampleCheck:
    """Checks samples of one data set; ``channels`` are those of the model's input, if known."""

    num_classes: int
    color_type: str = 'color'
    lidar: LoadLidarChannels | None = None
    channels: int | None = None

    def run(self, info: dict) -> dict:
        """Check a sample, given its ``data_info`` of the dataset.

        Returns:
            Plain values, fit for JSON. ``problems``: sentences; ``ids``: those in the mask;
            ``labels``: pixels of each class, or empty; ``ignored``: pixels that are ignored or
            without data; ``unknown``: pixels of each value outside the mask encoding; ``size``:
            height and width; ``channels``: [pixels, sums, sums of squares].
        """
        finding = dict(problems=[], ids=[], labels=[], ignored=0, unknown={}, size=None,
                       channels=None)
        image = gaps = None
        try:
            known = self.color_type in COLOUR_FLAGS
            image, gaps = read_pixels(info['img_path'], self.color_type if known else 'color')
            finding['size'] = list(image.shape[:2])
        except UserError as error:
            finding['problems'].append(str(error))
        for check in (self._check_mask, self._check_channels):
            try:
                finding['problems'].extend(check(finding, info, image, gaps))
            except UserError as error:
                finding['problems'].append(str(error))
        return finding

    def _check_mask(self, finding: dict, info: dict, image, gaps):
        path = info.get('seg_map_path')
        if path is None:
            return
        if not osp.exists(path):
            raise UserError(f'image {info["img_path"]} has no mask: {path} does not exist')
        encoding = MaskEncoding(info.get('mask_encoding', 'ids'), info.get('classes', ()))
        mask = read_mask(path, None, encoding.reads_colours)
        if image is not None and mask.shape[:2] != image.shape[:2]:
            raise UserError(f'mask {path} is {_size(mask)} pixels (height x width), its image '
                            f'{info["img_path"]} {_size(image)}: export both on one grid')
        ids, finding['unknown'] = encoding.decode(mask, gaps)
        if finding['unknown']:
            yield (f'mask {path} has values that mask_encoding ({encoding.name}) does not know: '
                   f'{_counts(finding["unknown"])}')
        without_data = 0 if gaps is None else int(gaps.sum())
        counts = np.bincount(ids.ravel(), minlength=256)
        counts[IGNORE] -= sum(finding['unknown'].values()) + without_data
        table = label_table(info.get('reduce_zero_label', False), info.get('label_map'))
        labels = np.bincount(table, counts, 256).astype(int).tolist()
        finding.update(ids=np.flatnonzero(counts).tolist(), labels=labels[:self.num_classes],
                       ignored=labels[IGNORE] + without_data)
        outside = {id_: int(counts[id_]) for id_ in finding['ids']
                   if self.num_classes <= table[id_] < IGNORE}
        if outside:
            valid = np.flatnonzero(table < self.num_classes)
            yield (f'mask {path} has ids out of range: {_counts(outside)}; expected {valid[0]}..'
                   f'{valid[-1]} for {self.num_classes} classes, or 255 for ignored')

    def _check_channels(self, finding: dict, info: dict, image, gaps):
        if image is not None and min(image.shape[:2]) < PATCH:
            yield (f'image {info["img_path"]} is {_size(image)} pixels, smaller than one '
                   f'{PATCH}x{PATCH} patch: leave it out')
        and_raster = ''
        if self.lidar is not None:
            path, and_raster = info.get('lidar_path'), ' with its LiDAR raster'
            if path is None or not osp.exists(path):
                reason = f'{path} does not exist' if path else 'data_prefix.lidar_path is not set'
                raise UserError(f'image {info["img_path"]} has no LiDAR raster: {reason}')
            raster = self.lidar.load(path)
            image = None if image is None else append_lidar(image, info['img_path'], raster, path)
        if image is None:
            return
        if self.color_type in COLOUR_FLAGS and self.channels not in (None, image.shape[2]):
            yield (f'image {info["img_path"]}{and_raster} has {image.shape[2]} channels, the '
                   f"config's data_preprocessor {self.channels}: make data_preprocessor.mean, .std "
                   'and backbone.in_channels fit')
        counted = None if gaps is None else (~gaps).astype(np.uint8)
        pixels = image[..., 0].size if gaps is None else int(counted.sum())
        dtype = np.uint8 if image.dtype == np.uint8 else np.float32
        mean, std = np.array([cv2.meanStdDev(np.ascontiguousarray(channel, dtype), mask=counted)
                              for channel in np.moveaxis(image, 2, 0)]).reshape(-1, 2).T
        finding['channels'] = [pixels, (mean * pixels).tolist(),
                               ((mean**2 + std**2) * pixels).tolist()]


def _size(array: np.ndarray) -> str:
    return f'{array.shape[0]}x{array.shape[1]}'


def _counts(values: dict) -> str:
    return shortened([f'{value} ({count} pixels)' for value, count in values.items()], VALUES_SHOWN)
