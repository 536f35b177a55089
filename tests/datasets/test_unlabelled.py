"""Images without labels: what is found, how rasters are cut, and where there is no data."""

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from raster.rasters import write_raster as write_bands

import bhvit_seg.modules  # noqa: F401
from bhvit_seg.datasets.unlabelled import NODATA
from bhvit_seg.errors import UserError
from bhvit_seg.models.losses.distillation import UNLABELLED

rng = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')  # rasters without a place on Earth


def dataset(images, **options):
    return DATASETS.build(dict(type='UnlabelledDataset', images=images,
                               pipeline=[dict(type='LoadUnlabelledImage')], **options))


def write_raster(path, pixels: np.ndarray, **profile) -> None:
    write_bands(path, pixels.transpose(2, 0, 1), **profile)


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


def test_pixels_without_data_stay_out(tmp_path):
    grey = rng.integers(1, 256, (12, 9, 1), np.uint8)
    grey[:3] = 0
    write_raster(tmp_path / 'grey.tif', grey, nodata=0)
    colour = rng.integers(0, 256, (12, 9, 4), np.uint8)
    colour[..., 3] = np.where(grey[..., 0], 255, 0)
    assert cv2.imwrite(str(tmp_path / 'alpha.png'), colour)
    for name, pixels in (('grey.tif', np.repeat(grey, 3, 2)), ('alpha.png', colour[..., :3])):
        sample = dataset(str(tmp_path / name))[0]
        assert (sample['gt_seg_map'][:3] == NODATA).all()
        assert (sample['gt_seg_map'][3:] == UNLABELLED).all()
        assert (sample['img'][3:] == pixels[3:]).all()
        assert (sample['img'][:3] == pixels[3:].mean((0, 1)).round()).all()


def test_what_cannot_be_read_is_named(tmp_path):
    for options, words in ((dict(images=str(tmp_path / 'nowhere')), 'nowhere'),
                           (dict(images=str(tmp_path)), str(tmp_path)),
                           (dict(images=str(tmp_path), tile_size=0), 'tile_size=0')):
        with pytest.raises(UserError, match=words):
            dataset(**options)
    (tmp_path / 'text.tif').write_text('no raster')
    with pytest.raises(UserError, match='text.tif'):
        dataset(str(tmp_path / 'text.tif'))
    write_raster(tmp_path / 'deep.tif', rng.integers(0, 4000, (8, 8, 3)).astype(np.uint16))
    with pytest.raises(UserError, match='deep.tif.*uint16'):
        dataset(str(tmp_path / 'deep.tif'))[0]


def test_labelled_images_come_first_and_the_share_is_a_fraction(written_set):
    config = dict(
        type='PartlyLabelledDataset', dataset=dict(
            type='RSLVFDataset', data_root=str(written_set), pipeline=[
                dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations')]),
        unlabelled=dict(type='UnlabelledDataset', images=str(written_set / 'images' / 'val'),
                        pipeline=[dict(type='LoadUnlabelledImage')]))
    both = DATASETS.build(config)
    assert (len(both), both.labelled, both.share) == (6, 4, 0.5)
    assert both.metainfo['classes'] == ('background', 'road')
    assert [both[i]['gt_seg_map'].max() == UNLABELLED for i in range(6)] == [False] * 4 + [True] * 2
    for share in (0, 1, 1.5):
        with pytest.raises(UserError, match=f'share={share}'):
            DATASETS.build({**config, 'share': share})
