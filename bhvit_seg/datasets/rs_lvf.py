"""RS-LVF (background, road; camera or camera and LiDAR), and other folders of aerial images."""

from __future__ import annotations

import codecs
import os.path as osp
from collections.abc import Mapping, Sequence

import mmengine.fileio as fileio
import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from bhvit_seg.datasets.lidar import LIDAR_SUFFIXES
from bhvit_seg.datasets.masks import MaskEncoding
from bhvit_seg.errors import UserError

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')


@DATASETS.register_module()
class RSLVFDataset(BaseSegDataset):
    """Aerial images with masks and, where configured, LiDAR rasters of the same names.

    A file's partner has the same path below its own folder with another suffix, in any case:
    ``images/train/a/tile1.jpg``, ``annotations/train/a/tile1.png``, ``lidar/train/a/tile1.tif``.

    Args:
        data_prefix: Folders below ``data_root``: ``img_path``, ``seg_map_path`` and, for LiDAR,
            ``lidar_path``.
        img_suffix, seg_map_suffix, lidar_suffix: One suffix or several.
        mask_encoding: See :class:`~bhvit_seg.datasets.masks.MaskEncoding`.
        metainfo: ``classes`` in the order of ids, and ``palette``.
        **kwargs: As in :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        UserError: A folder is missing or holds no image, two images have one name, or
            ``mask_encoding`` or ``palette`` does not fit.
    """

    METAINFO = dict(classes=('background', 'road'), palette=[[70, 90, 60], [255, 210, 60]])

    def __init__(self, data_prefix: dict | None = None,
                 img_suffix: str | Sequence[str] = IMAGE_SUFFIXES,
                 seg_map_suffix: str | Sequence[str] = '.png',
                 lidar_suffix: str | Sequence[str] = LIDAR_SUFFIXES,
                 mask_encoding: str | Mapping = 'ids', metainfo: dict | None = None,
                 **kwargs) -> None:
        self.lidar_suffix = _as_tuple(lidar_suffix)
        self.mask_encoding = mask_encoding
        self._palette_given = 'palette' in (metainfo or {})
        prefix = data_prefix or dict(img_path='images/train', seg_map_path='annotations/train')
        super().__init__(
            data_prefix={key: folder for key, folder in prefix.items() if folder is not None},
            img_suffix=_as_tuple(img_suffix), seg_map_suffix=_as_tuple(seg_map_suffix),
            metainfo=metainfo, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict | None:
        """Map labels where ``new_classes`` is a subset of our own; else it is another data set."""
        if new_classes is None or not set(new_classes) <= set(cls.METAINFO['classes']):
            return None
        return super().get_label_map(new_classes)

    def _update_palette(self) -> list:
        classes = self._metainfo['classes']
        palette = self._metainfo['palette']
        if self._palette_given:
            if len(palette) != len(classes):
                raise UserError(f'metainfo has {len(classes)} classes but a palette of '
                                f'{len(palette)} colours: give one colour a class, or no palette')
            return palette
        own = dict(zip(self.METAINFO['classes'], self.METAINFO['palette']))
        generated = np.random.default_rng(42).integers(32, 256, (len(classes), 3)).tolist()
        return [own.get(name, colour) for name, colour in zip(classes, generated)]

    def load_data_list(self) -> list[dict]:
        """List images (sorted by name) with the paths of their partners."""
        # Parsed here to raise errors early; workers parse it again.
        MaskEncoding(self.mask_encoding, self._metainfo['classes'])
        folder = self.data_prefix['img_path']
        if not self._is_folder(folder):
            raise UserError(f'image folder {folder} does not exist: set data_root (or --data-root) '
                            'to the folder that holds it, or data_prefix.img_path to its name')
        images = self._by_stem(folder, self.img_suffix, unique=True)
        if self.ann_file:
            images = self._select(images)
        if not images:
            raise UserError(f'image folder {folder} holds no file ending in '
                            f"{' or '.join(self.img_suffix)}: check data_prefix and img_suffix")
        data_list = [dict(
            img_path=osp.join(folder, images[stem]), label_map=self.label_map, seg_fields=[],
            reduce_zero_label=self.reduce_zero_label, mask_encoding=self.mask_encoding,
            classes=self._metainfo['classes']) for stem in sorted(images)]
        for key, suffixes in (('seg_map_path', self.seg_map_suffix),
                              ('lidar_path', self.lidar_suffix)):
            folder = self.data_prefix.get(key)
            if folder is not None and self._is_folder(folder):
                files = self._by_stem(folder, suffixes)
                for info, stem in zip(data_list, sorted(images)):
                    # A missing partner keeps the name it should have: check and loader report it.
                    info[key] = osp.join(folder, files.get(stem, stem + suffixes[0]))
            elif folder is not None and (key != 'seg_map_path' or not self.test_mode):
                raise UserError(f'data_prefix.{key} is {folder}, which does not exist: correct it, '
                                'or data_root, or set it to None')
        return data_list

    def _is_folder(self, folder: str) -> bool:
        return fileio.isdir(folder, backend_args=self.backend_args)

    def _by_stem(self, folder: str, suffixes: Sequence[str], unique: bool = False
                 ) -> dict[str, str]:
        files = {}
        for name in sorted(fileio.list_dir_or_file(
                folder, list_dir=False, recursive=True, backend_args=self.backend_args)):
            lower = name.lower()
            # The longest suffix that fits: '_sat.jpg' goes before '.jpg'.
            fitting = [len(suffix) for suffix in suffixes if lower.endswith(suffix.lower())]
            if not fitting:
                continue
            stem = name[:len(name) - max(fitting)]
            if unique and stem in files:
                raise UserError(f'images {files[stem]} and {name} in {folder} share one name, and '
                                'so one mask: rename one, or narrow img_suffix')
            files.setdefault(stem, name)
        return files

    def _select(self, images: dict[str, str]) -> dict[str, str]:
        """Keep the images that ``ann_file`` names, one a line, with or without suffix."""
        if not fileio.isfile(self.ann_file, backend_args=self.backend_args):
            raise UserError(f'ann_file {self.ann_file} does not exist: correct it, or leave it '
                            'out to use every image of the folder')
        content = fileio.get(self.ann_file, backend_args=self.backend_args)
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        try:
            text = content.decode('utf-16' if utf_16 else 'utf-8-sig')
        except UnicodeDecodeError:
            text = content.decode('latin-1')
        lines = list(filter(None, map(str.strip, text.splitlines())))
        if not lines:
            raise UserError(f'ann_file {self.ann_file} names no image: write one a line, or leave '
                            'it out to use every image of the folder')
        stems = {listed: stem for stem, name in images.items()
                 for listed in (stem, name, stem + osp.splitext(name)[1])}
        selected = {}
        for line in lines:
            stem = stems.get(line) or stems.get(line.replace('\\', '/'))
            if stem is None:
                raise UserError(f'ann_file {self.ann_file} names {line!r}, which is not an image '
                                f"of {self.data_prefix['img_path']}: correct the line")
            selected[stem] = images[stem]
        return selected


def _as_tuple(suffix: str | Sequence[str]) -> tuple[str, ...]:
    return (suffix,) if isinstance(suffix, str) else tuple(suffix)
