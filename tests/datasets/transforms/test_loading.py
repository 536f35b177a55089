"""Images, masks and LiDAR rasters enter a sample."""

from __future__ import annotations

import cv2
import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmseg.registry import TRANSFORMS

from bhvit_seg.datasets.transforms import LoadAerialAnnotations, LoadAerialImage, LoadLidarChannels
from bhvit_seg.errors import UserError


def sample(size=(6, 5)):
    return dict(img=np.full((*size, 3), 7, np.uint8), img_path='x.png')


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


def test_jpeg_orientation_is_obeyed(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    from PIL import Image
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / 'a.jpg', exif=exif)
    assert LoadAerialImage()(dict(img_path=str(tmp_path / 'a.jpg')))['img'].shape == (6, 4, 3)


def test_unknown_color_type_is_refused():
    with pytest.raises(UserError, match='color_type'):
        LoadAerialImage(color_type='colour')


def test_sample_without_mask_passes():
    assert 'gt_seg_map' not in LoadAerialAnnotations()(sample())


def test_mask_of_mmseg_datasets_is_ids(tmp_path):
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), ids)
    result = LoadAerialAnnotations()(dict(seg_map_path=str(tmp_path / 'a.png'), seg_fields=[],
                                          reduce_zero_label=True, label_map={0: 0, 1: 5}))
    assert result['gt_seg_map'].tolist() == [[255, 0], [5, 255]]


def test_value_outside_the_encoding_names_the_file(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.array([[0, 7, 7]], np.uint8))
    with pytest.raises(UserError, match=r'a\.png has 2 pixels of the value 7') as error:
        LoadAerialAnnotations()(dict(seg_map_path=str(tmp_path / 'a.png'),
                                     mask_encoding='binary255'))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('channels', [1, 2, 6])
def test_lidar_channels_are_appended_as_they_are(tmp_path, dtype, channels):
    raster = (np.random.default_rng(0).random((6, 5, channels)) * 300).astype(dtype)
    result = LoadLidarChannels()({**sample(), 'lidar_path': write_npy(tmp_path, raster)})
    assert result['img'].dtype == np.float32 and result['img'].shape == (6, 5, 3 + channels)
    assert (result['img'][..., :3] == 7).all() and (result['img'][..., 3:] == raster).all()


def test_lidar_channels_are_chosen_in_order(tmp_path):
    raster = np.arange(6 * 5 * 3, dtype=np.int16).reshape(6, 5, 3)
    path = write_npy(tmp_path, raster)
    result = LoadLidarChannels(channels=[2, 0])({**sample(), 'lidar_path': path})
    assert (result['img'][..., 3:] == raster[..., [2, 0]]).all()
    with pytest.raises(UserError, match='no channel 3'):
        LoadLidarChannels(channels=[3])({**sample(), 'lidar_path': path})


def test_gaps_are_filled(tmp_path):
    raster = np.ones((6, 5), np.float32)
    raster[0, :4] = np.nan, np.inf, -np.inf, -9999
    path = write_npy(tmp_path, raster)
    height = LoadLidarChannels(fill=-1, nodata=-9999).load(path)[..., 0]
    assert height[0].tolist() == [-1, -1, -1, -1, 1] and (height[1:] == 1).all()


@pytest.mark.parametrize('dtype, nodata', [('float32', -3.4028234663852886e38), ('int16', -32768)])
def test_nodata_of_a_geotiff_is_filled(tmp_path, dtype, nodata):
    rasterio = pytest.importorskip('rasterio', reason='writes the nodata tag')
    raster = np.ones((1, 6, 5), dtype)
    raster[0, 2, 3] = nodata
    path = str(tmp_path / 'a.tif')
    with rasterio.open(path, 'w', driver='GTiff', height=6, width=5, count=1, dtype=dtype,
                       nodata=nodata) as file:
        file.write(raster)
    height = LoadLidarChannels(fill=5).load(path)[..., 0]
    assert height[2, 3] == 5 and (height == 1).sum() == 29


def test_lidar_of_another_size_or_missing_is_named(tmp_path):
    path = write_npy(tmp_path, np.zeros((6, 4), np.float32))
    with pytest.raises(UserError, match=r'lidar\.npy is 6x4 pixels.*x\.png 6x5'):
        LoadLidarChannels()({**sample(), 'lidar_path': path})
    with pytest.raises(UserError, match='lidar_path'):
        LoadLidarChannels()(sample())
    with pytest.raises(UserError, match=r'gone\.tif does not exist'):
        LoadLidarChannels()({**sample(), 'lidar_path': str(tmp_path / 'gone.tif')})


@pytest.mark.parametrize('channels', [4, 5, 9])
def test_mmseg_transforms_take_many_channels(channels):
    rng = np.random.default_rng(0)
    image = rng.random((40, 30, channels)).astype(np.float32)
    mask = rng.integers(0, 2, (40, 30), dtype=np.uint8)
    result = dict(img=image, gt_seg_map=mask, seg_fields=['gt_seg_map'])
    for step in (dict(type='RandomResize', scale=(60, 60), ratio_range=(0.5, 2.0),
                      keep_ratio=True),
                 dict(type='RandomCrop', crop_size=(16, 16)),
                 dict(type='RandomFlip', prob=1.0), dict(type='RandomRotFlip', rotate_prob=0.0,
                                                         flip_prob=1.0),
                 dict(type='PackSegInputs')):
        result = TRANSFORMS.build(step)(result)
    assert result['inputs'].shape == (channels, 16, 16)
    assert result['data_samples'].gt_sem_seg.shape == (16, 16)


def test_resizing_many_channels_is_resizing_each():
    image = np.random.default_rng(0).random((20, 30, 7)).astype(np.float32)
    together = mmcv.imresize(image, (17, 13))
    each = [mmcv.imresize(np.ascontiguousarray(image[..., i]), (17, 13)) for i in range(7)]
    np.testing.assert_allclose(together, np.stack(each, axis=2), atol=1e-6)


def load_both(folder, image_path, mask, **arguments):
    cv2.imwrite(str(folder / 'mask.png'), mask)
    return LoadAerialAnnotations()(LoadAerialImage(**arguments)(dict(
        img_path=str(image_path), seg_map_path=str(folder / 'mask.png'))))


def write_tiff(path, bands, nodata=None, alpha=False):
    """Write bands (C, H, W) as GDAL does, a fourth one as alpha or as nothing in particular."""
    rasterio = pytest.importorskip('rasterio')
    colours = {3: dict(photometric='RGB'), 4: dict(photometric='RGB')}
    extra = dict(alpha='YES' if alpha else 'UNSPECIFIED') if len(bands) == 4 else {}
    with rasterio.open(path, 'w', 'GTiff', bands.shape[2], bands.shape[1], len(bands),
                       dtype=bands.dtype, nodata=nodata, **colours.get(len(bands), {}),
                       **extra) as file:
        file.write(bands)
    return path


def mean_of(image, gaps):
    """What stands where an 8-bit image has no data."""
    return image[~gaps].mean(0).round().astype(np.uint8)


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
@pytest.mark.parametrize('case', ['declared', 'fourth band is alpha', 'fourth band', 'nothing'])
def test_labels_are_ignored_where_a_geotiff_has_no_data(tmp_path, case, color_type):
    rng = np.random.default_rng(0)
    bands = rng.integers(1, 255, (4 if 'fourth' in case else 3, 6, 5), np.uint8)
    gaps = np.zeros((6, 5), bool)
    if case == 'declared':
        bands[:, :2] = 0
        bands[0, 3] = 0  # one band alone is a colour
        gaps[:2] = True
    elif 'fourth' in case:
        bands[3, :, 4] = 0
        # As a channel it may be infrared, whatever it is called.
        gaps[:, 4] = 'alpha' in case and color_type == 'color'
    path = write_tiff(tmp_path / 'a.tif', bands, 0 if case == 'declared' else None,
                      'alpha' in case)
    result = load_both(tmp_path, path, np.ones((6, 5), np.uint8), color_type=color_type)
    assert (result['gt_seg_map'] == np.where(gaps, 255, 1)).all()
    assert ('nodata' in result) == gaps.any()
    expected = bands[2::-1].transpose(1, 2, 0).copy()
    expected[gaps] = mean_of(expected, gaps)
    assert (result['img'][..., :3] == expected).all()


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('photometric', ['PALETTE', 'MINISWHITE'])
def test_nodata_that_is_no_colour_is_not_looked_for_among_colours(tmp_path, photometric):
    rasterio = pytest.importorskip('rasterio')
    values = np.array([[0, 0, 1, 1], [255, 255, 7, 7]], np.uint8)
    with rasterio.open(tmp_path / 'a.tif', 'w', 'GTiff', 4, 2, 1, dtype='uint8', nodata=0,
                       photometric=photometric) as file:
        file.write(values, 1)
        if photometric == 'PALETTE':
            file.write_colormap(1, {0: (255, 255, 255, 255), 1: (0, 0, 0, 255)})
    assert 'nodata' not in LoadAerialImage()(dict(img_path=str(tmp_path / 'a.tif')))


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_values_that_mean_no_data_do_not_reach_the_model(tmp_path):
    bands = np.random.default_rng(0).random((5, 6, 5)).astype(np.float32)
    bands[2, 1], bands[0, 4, 4] = np.nan, np.inf
    bands[:, 0, 0] = -9999
    result = load_both(tmp_path, write_tiff(tmp_path / 'a.tif', bands, -9999),
                       np.zeros((6, 5), np.uint8), color_type='unchanged')
    ignored = np.zeros((6, 5), bool)
    ignored[1], ignored[4, 4], ignored[0, 0] = True, True, True
    assert ((result['gt_seg_map'] == 255) == ignored).all()
    image = result['img']
    np.testing.assert_allclose(image[ignored], np.broadcast_to(
        image[~ignored].mean(0, dtype=np.float64), (7, 5)), rtol=1e-6)
    assert (image >= 0).all() and (image <= 1).all()


def save_png(path, kind):
    """Write a PNG with the first three pixels of two columns transparent, if it can be."""
    from PIL import Image

    rng = np.random.default_rng(0)
    gaps = np.zeros((6, 6), bool)
    gaps[:3, :2] = True
    mode = kind.split()[0]
    pixels = rng.integers(1, 255, (6, 6, len(mode)) if len(mode) > 1 else (6, 6), np.uint8)
    if mode.endswith('A'):
        pixels[..., -1] = np.where(gaps, 0, 255)
        options = {}
    elif kind.endswith('colour'):
        pixels[gaps] = 0
        options = dict(transparency=(0, 0, 0) if mode == 'RGB' else 0)
    else:
        return Image.fromarray(pixels).save(path) or np.zeros((6, 6), bool)
    picture = Image.fromarray(pixels)
    if mode == 'P':
        picture.putpalette([*range(0, 256), *range(0, 256), *range(0, 256)])
    if kind.endswith('rotated'):
        exif = Image.Exif()
        exif[0x0112] = 6
        options['exif'] = exif
        gaps = np.rot90(gaps, -1)
    picture.save(path, **options)
    return gaps


@pytest.mark.parametrize('kind', ['RGBA', 'LA', 'RGB', 'RGB colour', 'L colour', 'P colour',
                                  'RGBA rotated'])
def test_labels_are_ignored_where_a_png_is_transparent(tmp_path, kind):
    from PIL import Image, ImageOps

    gaps = save_png(tmp_path / 'a.png', kind)
    result = load_both(tmp_path, tmp_path / 'a.png', np.ones((6, 6), np.uint8))
    assert ((result['gt_seg_map'] == 255) == gaps).all()
    picture = ImageOps.exif_transpose(Image.open(tmp_path / 'a.png')).convert('RGB')
    expected = np.asarray(picture)[..., ::-1].copy()
    if gaps.any():
        expected[gaps] = mean_of(expected, gaps)
    assert (result['img'] == expected).all()


def test_an_image_without_any_data_is_0(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((6, 5, 4), (9, 9, 9, 0), np.uint8))
    result = load_both(tmp_path, tmp_path / 'a.png', np.ones((6, 5), np.uint8))
    assert (result['gt_seg_map'] == 255).all() and not result['img'].any()


@pytest.mark.parametrize('encoding', ['binary255', {'#ffffff': 1, '#000000': 0}])
def test_masks_may_have_anything_where_there_is_no_data(tmp_path, encoding):
    gaps = save_png(tmp_path / 'a.png', 'RGBA')
    cv2.imwrite(str(tmp_path / 'mask.png'), np.where(gaps, 99, 255).astype(np.uint8))
    loaded = LoadAerialImage()(dict(img_path=str(tmp_path / 'a.png'), mask_encoding=encoding,
                                    seg_map_path=str(tmp_path / 'mask.png')))
    labels = LoadAerialAnnotations()(loaded)['gt_seg_map']
    assert (labels == np.where(gaps, 255, 1)).all()
