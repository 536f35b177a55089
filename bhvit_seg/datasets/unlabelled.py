"""Images without labels: any folder, and rasters cut into tiles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import ConcatDataset

from bhvit_seg.datasets.decoder_messages import gdal_damage_as_error
from bhvit_seg.datasets.image_io import fill_gaps, read_pixels, swap_red_and_blue
from bhvit_seg.datasets.rs_lvf import IMAGE_SUFFIXES
from bhvit_seg.errors import UserError, first_line, load_package
from bhvit_seg.models.losses.distillation import UNLABELLED

NODATA = 255
RASTER_SUFFIXES = ('.tif', '.tiff', '.vrt', '.jp2')  # read by GDAL, in tiles


@DATASETS.register_module()
class UnlabelledDataset(BaseDataset):
    """All images below some folders, rasters in tiles.

    Args:
        images: Folders (searched with their subfolders) or images, one or several.
        tile_size: Side in pixels of the tiles that rasters are cut into.
        pipeline: Transforms, of which the first is ``LoadUnlabelledImage``.

    Raises:
        UserError: A folder or file is missing, there is no image, or a raster cannot be read.
    """

    def __init__(self, images: str | Sequence[str], tile_size: int = 512, pipeline: Sequence = (),
                 metainfo: dict | None = None, **kwargs) -> None:
        self.images = [images] if isinstance(images, (str, Path)) else list(images)
        self.tile_size = tile_size
        if tile_size < 1:
            raise UserError(f'UnlabelledDataset got tile_size={tile_size}: give pixels')
        super().__init__(pipeline=list(pipeline), metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List files (sorted) and tiles, ``window`` = (row, column, height, width) or None."""
        entries = []
        for path in find_images(self.images):
            windows = [None]
            if path.suffix.lower() in RASTER_SUFFIXES:
                with _open_raster(path) as raster:
                    sides = raster.shape
                # The last tile of a row or column ends with the raster.
                rows, columns = ([*range(0, max(side - self.tile_size, 0), self.tile_size),
                                  max(side - self.tile_size, 0)] for side in sides)
                height, width = (min(side, self.tile_size) for side in sides)
                windows = [(row, column, height, width) for row in rows for column in columns]
            entries += [dict(img_path=str(path), window=window, seg_fields=[])
                        for window in windows]
        return entries


@DATASETS.register_module()
class PartlyLabelledDataset(ConcatDataset):
    """A dataset with labels, and images without labels, which a teacher labels in training.

    Args:
        dataset: Config of the dataset with labels.
        unlabelled: Config of an :class:`UnlabelledDataset`.
        share: Fraction of unlabelled samples in each batch of ``ResumableTrainLoop``, less than 1.
    """

    def __init__(self, dataset: dict, unlabelled: dict, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise UserError(f'PartlyLabelledDataset got share={share}: give a fraction between 0 '
                            'and 1')
        self.dataset, self.unlabelled = DATASETS.build(dataset), DATASETS.build(unlabelled)
        self.share = share
        super().__init__([self.dataset, self.unlabelled])

    @property
    def metainfo(self) -> dict:
        return self.dataset.metainfo

    @property
    def labelled(self) -> int:
        return len(self.dataset)

    def full_init(self) -> None:
        self.dataset.full_init()
        self.unlabelled.full_init()


@TRANSFORMS.register_module()
class LoadUnlabelledImage(BaseTransform):
    """Load an image or the ``window`` of a raster as ``img`` (H, W, 3) uint8, blue first.

    ``gt_seg_map`` is 254, "no label", and 255 where there is no data: losses on labels ignore both,
    a teacher labels only the first.

    Raises:
        UserError: The file is missing or damaged, or has no 8-bit bands.
    """

    def transform(self, results: dict) -> dict:
        if results.get('window') is None:
            image, gaps = read_pixels(results['img_path'])
        else:
            image, gaps = _read_window(results['img_path'], results['window'])
        image = swap_red_and_blue(image)
        labels = np.full(image.shape[:2], UNLABELLED, np.uint8)
        if gaps is not None:
            labels[gaps] = NODATA
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2],
                       gt_seg_map=labels)
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results


def find_images(places: Sequence[str | Path]) -> list[Path]:
    """Return the images of folders, and images; a missing file or empty folder is a UserError."""
    suffixes = {*IMAGE_SUFFIXES, *RASTER_SUFFIXES}
    files = []
    for place in map(Path, places):
        if place.is_dir():
            found = sorted(path for path in place.rglob('*') if path.suffix.lower() in suffixes)
            if not found:
                raise UserError(f'the folder {place} holds no image ending in '
                                f'{", ".join(sorted(suffixes))}')
            files += found
        elif place.is_file():
            files.append(place)
        else:
            raise UserError(f'there is no folder and no image at {place}: give folders of images '
                            'without labels, or images')
    return files


@contextlib.contextmanager
def _open_raster(path: str | Path) -> Iterator:
    rasterio = load_package('rasterio')
    try:
        with rasterio.open(path) as raster, gdal_damage_as_error():
            yield raster
    except rasterio.errors.RasterioError as error:
        raise UserError(f'the raster {path} cannot be read ({first_line(error.__cause__ or error)})'
                        ': copy or export it again') from error


def _read_window(path: str, window: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
    row, column, height, width = window
    part = (row, row + height), (column, column + width)
    with _open_raster(path) as raster:
        bands = [1, 2, 3] if raster.count >= 3 else [1, 1, 1]
        if {raster.dtypes[band - 1] for band in bands} != {'uint8'}:
            raise UserError(f'the raster {path} has bands of {raster.dtypes[0]}, and images of 8 '
                            'bits are expected: convert it, for example with gdal_translate -ot '
                            'Byte -scale')
        image = raster.read(bands, window=part).transpose(1, 2, 0)
        return fill_gaps(image, raster.dataset_mask(window=part) == 0)
