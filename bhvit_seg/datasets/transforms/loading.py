"""Load images, masks and LiDAR rasters. Their ``repr`` is part of what identifies a prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from bhvit_seg.datasets.image_io import COLOUR_FLAGS, read_mask, read_pixels, swap_red_and_blue
from bhvit_seg.datasets.lidar import append_lidar, read_lidar
from bhvit_seg.datasets.masks import IGNORE, MaskEncoding, label_table
from bhvit_seg.errors import UserError
from bhvit_seg.models.losses.distillation import UNLABELLED


@TRANSFORMS.register_module()
class LoadAerialImage(BaseTransform):
    """Load ``img_path`` as ``img`` (H, W, C), blue first; refuse a damaged file.

    Sets ``img_shape`` and ``ori_shape`` and, where pixels have no data, ``nodata`` (H, W) bool, see
    :func:`~bhvit_seg.datasets.image_io.read_pixels`.

    Args:
        color_type: ``'color'`` (three 8-bit channels) or ``'unchanged'`` (every band of the file,
            as float32 where it is not 8-bit).
        backend_args: Storage backend of mmengine.
    """

    def __init__(self, color_type: str = 'color', backend_args: dict | None = None) -> None:
        if color_type not in COLOUR_FLAGS:
            raise UserError(f'color_type={color_type!r} is unknown: expected one of '
                            f"{', '.join(map(repr, COLOUR_FLAGS))}")
        self.color_type = color_type
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        image, gaps = read_pixels(results['img_path'], self.color_type, self.backend_args)
        image = swap_red_and_blue(image)  # as mmseg's transforms and preprocessors expect it
        # Neither torch nor cv2.resize takes every 16-bit type.
        results['img'] = image if image.dtype == np.uint8 else image.astype(np.float32)
        if gaps is not None:
            results['nodata'] = gaps
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(color_type={self.color_type!r})'


@TRANSFORMS.register_module()
class LoadAerialAnnotations(BaseTransform):
    """Load ``seg_map_path`` as ``gt_seg_map`` (H, W) uint8, by the sample's ``mask_encoding`` (ids
    by default), ``reduce_zero_label`` and ``label_map``.

    A sample without ``seg_map_path`` (prediction) passes unchanged. Where the image has no data,
    the label is 255, which losses and scores ignore.

    Args:
        backend_args: Storage backend of mmengine.
        keep_unlabelled: Use 254 instead of 255 for ignored pixels with data: a teacher labels them
            (``DistillationSegmentor``), losses on labels ignore them.

    Raises:
        UserError: The file is missing or truncated, or a pixel is outside the encoding.
    """

    def __init__(self, backend_args: dict | None = None, keep_unlabelled: bool = False) -> None:
        self.backend_args = backend_args
        self.keep_unlabelled = keep_unlabelled
        self._parsed = None

    def transform(self, results: dict) -> dict:
        path = results.get('seg_map_path')
        if path is None:
            return results
        description = results.get('mask_encoding', 'ids'), results.get('classes', ())
        if self._parsed is None or self._parsed[0] != description:
            self._parsed = description, MaskEncoding(*description)
        encoding = self._parsed[1]
        ids, unknown = encoding.decode(
            read_mask(path, self.backend_args, encoding.reads_colours), results.get('nodata'))
        if unknown:
            value, count = next(iter(unknown.items()))
            raise UserError(f'mask {path} has {count} pixels of the value {value}, which '
                            f'mask_encoding ({encoding.name}) does not know: run `bhvit-seg '
                            'check-dataset` for all such files')
        table = label_table(results.get('reduce_zero_label', False), results.get('label_map'))
        labels = results['gt_seg_map'] = table[ids]
        if self.keep_unlabelled:
            labels[(labels == IGNORE) & ~results.get('nodata', np.False_)] = UNLABELLED
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class LoadLidarChannels(BaseTransform):
    """Append the channels of the raster ``lidar_path`` to ``img``, which becomes float32.

    Place it right after the loading of the image, so that later steps treat all channels the same
    way. Values stay as in the file (metres, counts); the data preprocessor normalises them. The
    arguments are those of :func:`~bhvit_seg.datasets.lidar.read_lidar`.

    Raises:
        UserError: The raster is missing, truncated, of another size than the image, or lacks a
            channel.
    """

    def __init__(self, channels: Sequence[int] | None = None, fill: float = 0.0,
                 nodata: float | None = None, backend_args: dict | None = None) -> None:
        self.channels = None if channels is None else list(channels)
        self.fill = fill
        self.nodata = nodata
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        if 'lidar_path' not in results:
            raise UserError(f"image {results.get('img_path')} comes without LiDAR raster: set "
                            'data_prefix.lidar_path to the folder of the rasters')
        path = results['lidar_path']
        raster = self.load(path)
        results['img'] = append_lidar(results['img'], results.get('img_path'), raster, path)
        return results

    def load(self, path: str) -> np.ndarray:
        return read_lidar(path, self.channels, self.fill, self.nodata, self.backend_args)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(channels={self.channels}, fill={self.fill}, '
                f'nodata={self.nodata})')
