"""The dataset finds files, pairs them and says what is wrong with a folder."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from bhvit_seg.errors import UserError

MASK = 'annotations/train/scene_0001.png'


def names(dataset, key='img_path'):
    return [Path(dataset.get_data_info(i)[key]).name for i in range(len(dataset))]


def test_default_layout(scenes, build):
    dataset = build(scenes, lidar=True)
    stems = [f'scene_000{i}' for i in range(4)]
    assert names(dataset) == names(dataset, 'seg_map_path') == [f'{s}.png' for s in stems]
    assert names(dataset, 'lidar_path') == [f'{s}.tif' for s in stems]
    assert dataset.metainfo['classes'] == ('background', 'road')
    sample = dataset[1]
    assert sample['img'].shape == (64, 80, 4) and sample['img'].dtype == np.float32
    truth = cv2.imread(str(scenes / MASK), cv2.IMREAD_UNCHANGED)
    assert (sample['gt_seg_map'] == truth).all() and sample['seg_fields'] == ['gt_seg_map']
    # Masks of colours mean what the encoding says, which is told to be wrong at once.
    colours = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    cv2.imwrite(str(scenes / MASK), colours[truth][..., ::-1])
    encoding = {'#0A141E': 'background', '#28323C': 'road'}
    assert (build(scenes, mask_encoding=encoding)[1]['gt_seg_map'] == truth).all()
    with pytest.raises(UserError, match="mask_encoding='auto'"):
        build(scenes, mask_encoding='auto')


def test_suffixes_of_any_case_and_below_folders(tmp_path, build):
    for name in ('a/x_sat.JPG', 'a/x_mask.png', 'b/y_sat.jpg', 'b/y_mask.png', 'b/note.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    dataset = build(tmp_path, data_prefix=dict(img_path='', seg_map_path=''),
                    img_suffix='_sat.jpg', seg_map_suffix='_mask.png')
    assert names(dataset) == ['x_sat.JPG', 'y_sat.jpg']
    assert names(dataset, 'seg_map_path') == ['x_mask.png', 'y_mask.png']


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'latin-1', 'utf-16'])
def test_ann_file_of_any_editor_selects(scenes, build, encoding):
    for folder in ('images', 'annotations'):
        (scenes / folder / 'train' / 'höhe').mkdir()
        (scenes / folder / 'train' / 'scene_0001.png').rename(
            scenes / folder / 'train' / 'höhe' / 'größe.png')
    lines = 'scene_0003\r\n\r\nhöhe\\größe.png\r\nscene_0000.png\r\n'
    (scenes / 'list.txt').write_bytes(lines.encode(encoding))
    dataset = build(scenes, ann_file='list.txt')
    assert names(dataset) == ['größe.png', 'scene_0000.png', 'scene_0003.png']
    assert all('gt_seg_map' in dataset[index] for index in range(3))


@pytest.mark.parametrize('content, words', [
    (b'', 'list.txt names no image'), (b'\xef\xbb\xbf \n\n', 'list.txt names no image'),
    (b'scene_9999', 'scene_9999'), (None, 'list.txt does not exist')])
def test_ann_file_without_the_images_is_refused(scenes, build, content, words):
    if content is not None:
        (scenes / 'list.txt').write_bytes(content)
    with pytest.raises(UserError, match=words):
        build(scenes, ann_file='list.txt')


def test_missing_folders(scenes, build):
    with pytest.raises(UserError, match='data_root'):
        build(scenes / 'nowhere')
    with pytest.raises(UserError, match='img_suffix'):
        build(scenes, img_suffix='.webp')
    shutil.rmtree(scenes / 'annotations')
    with pytest.raises(UserError, match='seg_map_path'):
        build(scenes)
    assert 'gt_seg_map' not in build(scenes, test_mode=True)[0]
    shutil.rmtree(scenes / 'lidar')
    with pytest.raises(UserError, match='lidar_path'):
        build(scenes, lidar=True, test_mode=True)


def test_two_images_of_one_name_are_refused(scenes, build):
    shutil.copy(scenes / 'images/train/scene_0000.png', scenes / 'images/train/scene_0000.jpg')
    with pytest.raises(UserError, match='scene_0000.jpg and scene_0000.png'):
        build(scenes)


def test_other_classes_need_no_palette_and_ours_are_mapped(written_set, build):
    classes = ('building', 'land', 'road', 'vegetation', 'water')
    dataset = build(written_set, metainfo=dict(classes=classes))
    assert dataset.metainfo['classes'] == classes and dataset.label_map is None
    assert len(dataset.metainfo['palette']) == 5
    assert dataset.metainfo['palette'][2] == dataset.METAINFO['palette'][1]
    with pytest.raises(UserError, match='5 classes but a palette of 1'):
        build(written_set, metainfo=dict(classes=classes, palette=[[0, 0, 0]]))
    ids, labels = (build(written_set, **options)[0]['gt_seg_map']
                   for options in ({}, dict(metainfo=dict(classes=('road',)))))
    assert (labels == np.where(ids == 1, 0, 255)).all()
