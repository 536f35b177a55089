"""Crops: at random scale and favouring classes in training, of the centre in evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from bhvit_seg.errors import UserError


@TRANSFORMS.register_module()
class RandomScaleCrop(BaseTransform):
    """Crop at a random scale, often a window that contains a pixel of the favoured classes.

    Cropping before resizing is faster than ``RandomResize`` of the whole tile. The scale is
    relative to the tile's own resolution. A tile smaller than the window is used whole, and the
    data preprocessor pads it.

    Args:
        crop_size: Height and width of the result in pixels.
        ratio_range: Smallest and largest magnification.
        favoured_classes: Labels of which the window contains a random pixel with probability
            ``favour_prob``, where the tile has one.
    """

    def __init__(self, crop_size: int | Sequence[int], ratio_range: Sequence[float] = (0.5, 2.0),
                 favoured_classes: Sequence[int] = (), favour_prob: float = 0.5) -> None:
        self.crop_size = _pair(crop_size)
        self.ratio_range = tuple(ratio_range)
        self.favoured_classes = list(favoured_classes)
        self.favour_prob = favour_prob
        if len(self.ratio_range) != 2 or not 0 < self.ratio_range[0] <= self.ratio_range[1]:
            raise UserError(f'ratio_range={ratio_range} of RandomScaleCrop: expected two positive '
                            'factors, the smaller first')
        if not 0 <= favour_prob <= 1:
            raise UserError(f'favour_prob={favour_prob} of RandomScaleCrop: expected 0..1')

    def transform(self, results: dict) -> dict:
        size = results['img'].shape[:2]
        ratio = np.random.uniform(*self.ratio_range)
        window = [min(max(round(c / ratio), 1), s) for c, s in zip(self.crop_size, size)]
        top, left = self._place(results, size, window)
        # A window cut by the edge of the tile keeps its scale and becomes smaller.
        height, width = (c if round(c / ratio) <= s else min(max(round(s * ratio), 1), c)
                         for c, s in zip(self.crop_size, size))
        for key, interpolation in [('img', 'bilinear'),
                                   *((key, 'nearest') for key in results.get('seg_fields', []))]:
            cut = results[key][top:top + window[0], left:left + window[1]]
            resized = mmcv.imresize(cut, (width, height), interpolation=interpolation)
            results[key] = resized.reshape(height, width, *cut.shape[2:])
        results['img_shape'] = results['pad_shape'] = (height, width)
        results['scale_factor'] = (width / window[1], height / window[0])
        results['keep_ratio'] = True
        return results

    def _place(self, results: dict, size: Sequence[int], window: Sequence[int]) -> list[int]:
        """Return the window's first row and column."""
        last = [s - w for s, w in zip(size, window)]
        if self.favoured_classes and np.random.random() < self.favour_prob:
            labels = results['gt_seg_map'].ravel()
            # One of those among some random pixels is as random as one of all, and found without
            # looking at megapixels, unless there are few.
            drawn = np.random.randint(labels.size, size=256)
            chosen = drawn[np.isin(labels[drawn], self.favoured_classes)]
            if not chosen.size:
                chosen = np.flatnonzero(np.isin(labels, self.favoured_classes))
            if chosen.size:
                pixel = divmod(chosen[np.random.randint(chosen.size)], size[1])
                # Anywhere in the window, so that the network does not learn a central position.
                return [np.random.randint(max(p - w + 1, 0), min(p, limit) + 1)
                        for p, w, limit in zip(pixel, window, last)]
        return [np.random.randint(limit + 1) for limit in last]


@TRANSFORMS.register_module()
class CenterCropEvaluation(BaseTransform):
    """Crop the centre of image and label, and score on that; smaller images are used as they are.

    mmcv's ``CenterCrop`` keeps ``ori_shape``, so the prediction would be resized to the whole image
    before it is compared with the cropped label. ``crop_size`` is (height, width) in pixels.
    """

    def __init__(self, crop_size: int | Sequence[int]) -> None:
        self.crop_size = _pair(crop_size)

    def transform(self, results: dict) -> dict:
        size = results['img'].shape[:2]
        top, left = (max(s - c, 0) // 2 for s, c in zip(size, self.crop_size))
        for key in ['img', *results.get('seg_fields', [])]:
            results[key] = results[key][top:top + self.crop_size[0], left:left + self.crop_size[1]]
        shape = results['img'].shape[:2]
        results['img_shape'] = results['ori_shape'] = results['pad_shape'] = shape
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop_size={self.crop_size})'


def _pair(crop_size: int | Sequence[int]) -> tuple[int, int]:
    pair = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise UserError(f'crop_size={crop_size}: expected height and width in pixels, both '
                        'positive integers')
    return pair
