"""Images without labels: what is found, how rasters are cut, and where there is no data."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS, TRANSFORMS

import bhvit_seg.modules  # noqa: F401
from bhvit_seg.datasets.unlabelled import NODATA
from bhvit_seg.errors import UserError
from bhvit_seg.models.losses.distillation import UNLABELLED

rng = np.random.default_rng(0)


def dataset(images, **options):
    return DATASETS.build(dict(type='UnlabelledDataset', images=images,
                               pipeline=[dict(type='LoadUnlabelledImage')], **options))


def write_raster(path, pixels: np.ndarray, nodata=None) -> None:
    rasterio = pytest.importorskip('rasterio')
    height, width, bands = pixels.shape
    with rasterio.open(path, 'w', driver='GTiff', height=height, width=width, count=bands,
                       dtype=pixels.dtype, nodata=nodata) as file:
        file.write(pixels.transpose(2, 0, 1))


def test_folders_and_files_are_found_in_order(tmp_path):
    picture = rng.integers(0, 256, (20, 30, 3), np.uint8)
    (tmp_path / 'a' / 'deep').mkdir(parents=True)
    for name in ('a/deep/2.png', 'a/1.PNG', 'b.png'):
        assert cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / 'a' / 'notes.txt').write_text('no image')
    found = dataset([str(tmp_path / 'a'), str(tmp_path / 'b.png')])
    assert [found.get_data_info(i)['img_path'] for i in range(len(found))] == [
        str(tmp_path / name) for name in ('a/1.PNG', 'a/deep/2.png', 'b.png')]
    sample = found[0]
    assert np.array_equal(sample['img'], picture)
    assert (sample['gt_seg_map'] == UNLABELLED).all() and sample['seg_fields'] == ['gt_seg_map']


def test_tiles_cover_a_raster_once_and_end_with_it(tmp_path):
    # A fourth band is taken for alpha: 0 would be no data.
    pixels = rng.integers(1, 256, (50, 33, 4), np.uint8)
    write_raster(tmp_path / 'big.tif', pixels)
    tiles = dataset(str(tmp_path), tile_size=20)
    assert len(tiles) == 3 * 2
    seen = np.zeros((50, 33), int)
    for index in range(len(tiles)):
        row, column, height, width = tiles.get_data_info(index)['window']
        assert (height, width) == (20, 20)
        part = pixels[row:row + 20, column:column + 20]
        assert np.array_equal(tiles[index]['img'], part[..., 2::-1])
        seen[row:row + 20, column:column + 20] += 1
    assert seen.min() == 1


def test_a_raster_of_one_band_becomes_grey_and_its_nodata_stays_out(tmp_path):
    pixels = rng.integers(1, 256, (12, 9, 1), np.uint8)
    pixels[:3] = 0
    write_raster(tmp_path / 'grey.tif', pixels, nodata=0)
    sample = dataset(str(tmp_path / 'grey.tif'))[0]
    assert sample['img'].shape == (12, 9, 3)
    expected = np.full((12, 9), UNLABELLED)
    expected[:3] = NODATA
    assert np.array_equal(sample['gt_seg_map'], expected)
    assert (sample['img'][:3] == round(float(pixels[3:].mean()))).all()


def test_transparent_pixels_of_an_image_are_no_data(tmp_path):
    pixels = rng.integers(0, 256, (8, 8, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[2:4, :, 3] = 0
    assert cv2.imwrite(str(tmp_path / 'alpha.png'), pixels)
    labels = dataset(str(tmp_path))[0]['gt_seg_map']
    assert (labels[2:4] == NODATA).all() and (labels == UNLABELLED).sum() == 6 * 8


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match='nowhere'):
        dataset(str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match=str(tmp_path)):
        dataset(str(tmp_path))
    (tmp_path / 'text.tif').write_text('no raster')
    with pytest.raises(UserError, match='text.tif'):
        dataset(str(tmp_path / 'text.tif'))
    write_raster(tmp_path / 'deep.tif', rng.integers(0, 4000, (8, 8, 3)).astype(np.uint16))
    with pytest.raises(UserError, match='deep.tif.*uint16'):
        dataset(str(tmp_path / 'deep.tif'))[0]
    with pytest.raises(UserError, match='tile_size=0'):
        dataset(str(tmp_path), tile_size=0)


def test_labelled_images_come_first_and_the_share_is_a_fraction(tmp_path):
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    for name in ('images/train/a', 'annotations/train/a', 'more/b', 'more/c'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / f'{name}.png'),
                           pixels[..., 0] // 128 if 'annotations' in name else pixels)
    config = dict(
        type='PartlyLabelledDataset', dataset=dict(
            type='RSLVFDataset', data_root=str(tmp_path), pipeline=[
                dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations')]),
        unlabelled=dict(type='UnlabelledDataset', images=str(tmp_path / 'more'),
                        pipeline=[dict(type='LoadUnlabelledImage')]))
    both = DATASETS.build(config)
    assert (len(both), both.labelled, both.share) == (3, 1, 0.5)
    assert both.metainfo['classes'] == ('background', 'road')
    assert [set(np.unique(both[i]['gt_seg_map'])) <= {0, 1} for i in range(3)] == [
        True, False, False]
    for share in (0, 1, 1.5):
        with pytest.raises(UserError, match=f'share={share}'):
            DATASETS.build({**config, 'share': share})


def test_masks_may_keep_ground_without_a_label_for_the_teacher(tmp_path):
    image = rng.integers(0, 256, (6, 6, 4), np.uint8)
    image[..., 3] = 255
    image[0, :, 3] = 0
    mask = np.ones((6, 6), np.uint8)
    mask[:3] = 255
    assert cv2.imwrite(str(tmp_path / 'image.png'), image)
    assert cv2.imwrite(str(tmp_path / 'mask.png'), mask)
    for keep, middle in ((False, 255), (True, UNLABELLED)):
        sample = dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'mask.png'))
        for step in (dict(type='LoadAerialImage'),
                     dict(type='LoadAerialAnnotations', keep_unlabelled=keep)):
            sample = TRANSFORMS.build(step)(sample)
        labels = sample['gt_seg_map']
        assert (labels[0] == NODATA).all() and (labels[1:3] == middle).all()
        assert (labels[3:] == 1).all()
