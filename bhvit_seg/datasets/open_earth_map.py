"""OpenEarthMap: land cover in eight classes, with a folder for each region."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence

from mmseg.registry import DATASETS

from bhvit_seg.datasets.rs_lvf import RSLVFDataset


@DATASETS.register_module()
class OpenEarthMapDataset(RSLVFDataset):
    """``REGION/images/REGION_1.tif`` below ``data_root`` with ``REGION/labels/REGION_1.tif``.

    Layout, ids and colours are the publisher's (zenodo.org/record/7223446, readme.txt;
    github.com/bao18/open_earth_map, oem/utils.py), names those of the paper (arXiv 2210.10732). Id
    0, unknown, is ignored. An ``ann_file`` names images without their region, ``aachen_39.tif``.
    """

    METAINFO = dict(
        classes=('bareland', 'rangeland', 'developed space', 'road', 'tree', 'water',
                 'agriculture land', 'building'),
        palette=[[128, 0, 0], [0, 255, 36], [148, 148, 148], [255, 255, 255], [34, 97, 38],
                 [0, 69, 255], [75, 181, 73], [222, 31, 7]])

    def __init__(self, data_prefix: dict | None = None, img_suffix: str | Sequence[str] = '.tif',
                 seg_map_suffix: str | Sequence[str] = '.tif', reduce_zero_label: bool = True,
                 **kwargs) -> None:
        super().__init__(data_prefix or dict(img_path='', seg_map_path=''), img_suffix,
                         seg_map_suffix, reduce_zero_label=reduce_zero_label, **kwargs)

    def load_data_list(self) -> list[dict]:
        data_list = super().load_data_list()
        for info in data_list:
            folder, name = osp.split(info['img_path'])
            if 'seg_map_path' in info:
                info['seg_map_path'] = osp.join(osp.dirname(folder), 'labels', name)
        return data_list

    def _by_stem(self, folder: str, suffixes: Sequence[str], unique: bool = False
                 ) -> dict[str, str]:
        """Images by the names of their files, as in the publisher's lists."""
        return {osp.basename(stem): name
                for stem, name in super()._by_stem(folder, suffixes, unique).items()
                if osp.basename(osp.dirname(name)) == 'images'}
