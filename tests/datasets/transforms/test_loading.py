"""Images, masks and LiDAR rasters enter a sample."""

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from raster.rasters import write_raster

from bhvit_seg.datasets.transforms import LoadAerialAnnotations, LoadAerialImage, LoadLidarChannels
from bhvit_seg.errors import UserError
from bhvit_seg.models.losses.distillation import UNLABELLED


def sample(size=(6, 5), **more):
    return dict(img=np.full((*size, 3), 7, np.uint8), img_path='x.png', **more)


def write_npy(folder, raster):
    np.save(folder / 'lidar.npy', raster)
    return str(folder / 'lidar.npy')


def test_image_is_that_of_mmcv(written_set):
    path = str(written_set / 'images/train/scene_0000.png')
    ours, theirs = (loader(dict(img_path=path))
                    for loader in (LoadAerialImage(), LoadImageFromFile()))
    assert ours.keys() == theirs.keys()
    assert (ours['img'] == theirs['img']).all() and ours['ori_shape'] == theirs['ori_shape']
    assert ours['img'].dtype == np.uint8
    with pytest.raises(UserError, match="color_type='colour'"):
        LoadAerialImage(color_type='colour')


def test_value_outside_the_encoding_names_the_file(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.array([[0, 7, 7]], np.uint8))
    with pytest.raises(UserError, match=r'a\.png has 2 pixels of the value 7') as error:
        LoadAerialAnnotations()(dict(seg_map_path=str(tmp_path / 'a.png'),
                                     mask_encoding='binary255'))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('encoding', ['binary255', {'#ffffff': 1, '#000000': 0}])
@pytest.mark.parametrize('keep', [False, True])
def test_labels_are_ignored_where_the_image_has_no_data(tmp_path, encoding, keep):
    image = np.full((6, 6, 4), 255, np.uint8)
    image[0, :, 3] = 0
    mask = np.full((6, 6), 255, np.uint8)
    mask[0] = 99  # may be anything
    paths = dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'mask.png'))
    assert cv2.imwrite(paths['img_path'], image) and cv2.imwrite(paths['seg_map_path'], mask)
    steps = LoadAerialImage(), LoadAerialAnnotations(keep_unlabelled=keep)
    loaded = steps[1](steps[0](dict(paths, mask_encoding=encoding)))
    assert (loaded['gt_seg_map'][0] == 255).all() and (loaded['gt_seg_map'][1:] == 1).all()
    # Ground without a label is another thing, which a teacher may speak about.
    loaded = steps[1](steps[0](dict(paths, label_map={99: 0, 1: 255})) | dict(
        mask_encoding=encoding))
    assert (loaded['gt_seg_map'][0] == 255).all()
    assert (loaded['gt_seg_map'][1:] == (UNLABELLED if keep else 255)).all()


def test_lidar_channels_are_chosen_in_order(tmp_path):
    raster = np.arange(6 * 5 * 3, dtype=np.int16).reshape(6, 5, 3)
    path = write_npy(tmp_path, raster)
    result = LoadLidarChannels(channels=[2, 0])(sample(lidar_path=path))
    assert (result['img'][..., 3:] == raster[..., [2, 0]]).all()
    with pytest.raises(UserError, match='no channel 3'):
        LoadLidarChannels(channels=[3]).load(path)


def test_gaps_are_filled(tmp_path):
    raster = np.ones((6, 5), np.float32)
    raster[0, :4] = np.nan, np.inf, -np.inf, -9999
    path = write_npy(tmp_path, raster)
    height = LoadLidarChannels(fill=-1, nodata=-9999).load(path)[..., 0]
    assert height[0].tolist() == [-1, -1, -1, -1, 1] and (height[1:] == 1).all()


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('dtype, nodata', [('float32', -3.4028234663852886e38), ('int16', -32768)])
def test_nodata_of_a_geotiff_is_filled(tmp_path, dtype, nodata):
    raster = np.ones((1, 6, 5), dtype)
    raster[0, 2, 3] = nodata
    path = write_raster(tmp_path / 'a.tif', raster, nodata=nodata)
    height = LoadLidarChannels(fill=5).load(str(path))[..., 0]
    assert height[2, 3] == 5 and (height == 1).sum() == 29


def test_lidar_of_another_size_or_missing_is_named(tmp_path):
    path = write_npy(tmp_path, np.zeros((6, 4), np.float32))
    for given, words in ((dict(lidar_path=path), r'lidar\.npy is 6x4 pixels.*x\.png 6x5'),
                         ({}, 'lidar_path'),
                         (dict(lidar_path=str(tmp_path / 'gone.tif')), r'gone\.tif does not')):
        with pytest.raises(UserError, match=words):
            LoadLidarChannels()(sample(**given))
