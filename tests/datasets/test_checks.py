"""Everything that can be wrong with a folder is found, and its file named."""

import os
import re
import shutil

import cv2
import numpy as np
import pytest
from mmengine import ConfigDict
from mmengine.dataset import ConcatDataset, RepeatDataset

from bhvit_seg.datasets.checks import check_dataset, check_from_config
from bhvit_seg.datasets.report import enet_class_weights
from bhvit_seg.errors import UserError, find_user_error, first_problem

MASK = 'annotations/train/scene_0001.png'
IMAGE = 'images/train/scene_0001.png'
LIDAR = 'lidar/train/scene_0001.tif'


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def alter(path, change):
    """Write an image again, or every image of a folder, as ``change`` makes it."""
    for each in sorted(path.iterdir()) if path.is_dir() else [path]:
        assert cv2.imwrite(str(each), change(read(each)))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def check(dataset, **options):
    report = check_dataset(dataset, progress=False, **options)
    assert all('\n' not in text for text in report.problems)
    return report


def problems(dataset, **options):
    return check(dataset, **options).problems


def test_counts_and_statistics_leave_out_pixels_without_data(scenes, build):
    alpha = np.full((64, 80), 255, np.uint8)
    alpha[:10] = 0
    alter(scenes / IMAGE, lambda image: np.dstack([image, alpha]))
    # What the mask has there is no mistake.
    alter(scenes / MASK, lambda mask: np.where(alpha, mask, 77).astype(np.uint8))
    report = check(build(scenes, lidar=True), channels=4)
    stems = [f'scene_{index:04d}' for index in range(4)]
    counted = np.stack([alpha > 0 if stem in MASK else np.ones((64, 80), bool) for stem in stems])
    masks, images, heights = (
        np.stack([read(scenes / folder / 'train' / f'{stem}{suffix}') if folder != 'images' else
                  cv2.imread(str(scenes / folder / 'train' / f'{stem}.png')) for stem in stems])
        for folder, suffix in (('annotations', '.png'), ('images', '.png'), ('lidar', '.tif')))
    assert not report.problems and report.num_images == 4 and report.ignored == 10 * 80
    assert report.pixels.tolist() == [(masks[counted] == label).sum() for label in (0, 1)]
    assert report.images_with_class.tolist() == [4, (masks == 1).any(axis=(1, 2)).sum()]
    pixels = np.column_stack([images[counted][:, ::-1], heights[counted]]).astype(float)
    np.testing.assert_allclose(report.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(report.std, pixels.std(axis=0), rtol=1e-6)


def ids_out_of_range(mask):
    mask[:2, :5], mask[2, :3] = 7, 9
    return mask


@pytest.mark.parametrize('name, damage, expected', [
    (MASK, os.remove, rf'{IMAGE} has no mask: .*{MASK} does not exist'),
    (IMAGE, os.remove, rf'{MASK} has no image'),
    (MASK, lambda path: alter(path, lambda mask: mask[:-4]),
     rf'{MASK} is 60x80 pixels .*{IMAGE} 64x80'),
    (MASK, lambda path: alter(path, ids_out_of_range),
     rf'{MASK} has ids out of range: 7 \(10 pixels\), 9 \(3 pixels\); expected 0\.\.1 for 2'),
    (MASK, lambda path: alter(path, lambda mask: np.full_like(mask, 300, np.uint16)),
     rf'{MASK} has values that mask_encoding \(ids\) does not know: 300 \(5120 pixels\)'),
    (IMAGE, cut, rf'{IMAGE} is truncated'),
    (MASK, cut, rf'{MASK} is truncated'),
    (LIDAR, os.remove, f'{LIDAR} does not exist'),
    (LIDAR, cut, LIDAR),
    (LIDAR, lambda path: alter(path, lambda raster: raster[:, :-1]), f'{LIDAR} is 64x79 pixels'),
])
def test_damage_is_found_and_named(scenes, build, name, damage, expected):
    damage(scenes / name)
    found, = problems(build(scenes, lidar=name == LIDAR))
    assert re.search(expected, found)


def test_channels_and_classes_are_compared_with_the_model(scenes, build):
    assert f'{IMAGE.replace("1", "0")} has 3 channels' in problems(build(scenes), channels=4)[0]
    assert len(problems(build(scenes, lidar=True), channels=5)) == 4
    assert 'num_classes=150' in problems(build(scenes), head_classes=(2, 150), channels=3)[0]


def test_all_problems_are_collected_and_some_shown(scenes, build):
    for path in (scenes / 'annotations/train').iterdir():
        path.unlink()
    report = check(build(scenes))
    text = report.summary(max_problems=3)
    assert len(report.problems) == 4
    assert text.count('problem: ') == 3 and '... and 1 more' in text
    assert '(3 more problem(s))' in first_problem(report.problems)


@pytest.mark.parametrize('change, options, words, remedy', [
    (lambda mask: mask * 255, {}, "mask_encoding='binary255'", dict(mask_encoding='binary255')),
    (lambda mask: mask + 1, {}, 'reduce_zero_label=True', dict(reduce_zero_label=True)),
    (lambda mask: mask | 255, {}, 'hold only 255', None),
    (lambda mask: mask * 0, dict(reduce_zero_label=True), 'no pixel of the train masks', None)])
def test_masks_of_other_ids_are_told_how_to_be_read(scenes, build, change, options, words, remedy):
    alter(scenes / 'annotations/train', change)
    report = check(build(scenes, **options))
    assert report.problems
    assert any(words in text for text in report.problems + report.warnings)
    if remedy:
        report = check(build(scenes, **remedy))
        assert not report.problems and report.pixels.sum() == 4 * 64 * 80


@pytest.mark.parametrize('encoding', ['ids', 'threshold', 'binary255'])
def test_masks_in_colours_are_told_how_to_be_read(scenes, build, encoding):
    colours = np.full((64, 80, 3), (60, 70, 80), np.uint8)
    colours[:9] = 0, 0, 255
    alter(scenes / 'annotations/train', lambda mask: colours)
    found = problems(build(scenes, mask_encoding=encoding))
    advice = {'#50463C': 'background', '#FF0000': 'road'}
    assert f'mask_encoding={advice}' in found[0] and 'scene_0000.png' in found[0]
    assert len(found) == 5 and not problems(build(scenes, mask_encoding=advice))


def test_missing_masks_are_a_problem_only_where_needed(scenes, build):
    (scenes / 'list.txt').write_text('scene_0000')  # leaves the other masks out on purpose
    assert not problems(build(scenes, ann_file='list.txt'))
    shutil.rmtree(scenes / 'annotations')
    dataset = build(scenes, test_mode=True)
    assert 'have no masks' in problems(dataset, split='test')[0]
    assert not problems(dataset, split='test', needs_masks=False)


def test_wrapped_datasets_are_looked_into(scenes, build):
    (scenes / MASK).unlink()
    for wrapped, count in ((ConcatDataset([build(scenes), build(scenes, indices=1)]), 5),
                           (RepeatDataset(build(scenes), 3), 4)):
        report = check(wrapped)
        assert report.num_images == count and len(report.problems) == 1


@pytest.mark.parametrize('pixels', [[10, 10], [99, 1], [5, 0, 20], [1000000, 1, 3, 500]])
def test_class_weights_are_those_of_enet(pixels):
    share = np.array(pixels) / sum(pixels)
    weights, enet, there = np.array(enet_class_weights(pixels)), 1 / np.log(1.02 + share), share > 0
    # The ratios are ENet's; the mean over pixels is 1.
    np.testing.assert_allclose((weights / weights[0])[there], (enet / enet[0])[there])
    assert (weights * share).sum() == pytest.approx(1) and (weights[~there] == 1).all()
    assert enet_class_weights(np.zeros(3)) == [1.0, 1.0, 1.0]


def test_config_is_checked(scenes, base_config):
    cfg = base_config('rs-lvf_camera-lidar')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(scenes)
    for split, count in (('train', 4), ('val', 2)):
        report = check_from_config(cfg, split, progress=False)
        assert not report.problems and report.num_images == count
    cfg.model = ConfigDict(decode_head=dict(num_classes=2), auxiliary_head=[dict(num_classes=7)],
                           data_preprocessor=dict(mean=[1.0, 2.0, 3.0]))
    report = check_from_config(cfg, progress=False)
    assert 'num_classes=7' in report.problems[0] and '4 channels' in report.problems[1]
    assert len(report.problems) == 5
    cfg.train_dataloader.dataset.mask_encoding = 'auto'
    with pytest.raises(Exception, match='auto') as error:
        check_from_config(cfg, progress=False)
    assert str(find_user_error(error.value)).startswith("mask_encoding='auto'")


def test_config_without_data_is_one_sentence(tmp_path, base_config):
    for name in ('rs-lvf_camera', 'ade20k_512x512'):
        cfg = base_config(name)
        for root, words in ((tmp_path / 'nowhere', 'nowhere.*--data-root'),
                            (tmp_path, 'image folder')):
            cfg.train_dataloader.dataset.data_root = str(root)
            with pytest.raises(UserError, match=words):
                check_from_config(cfg, progress=False)
    with pytest.raises(UserError, match='no sunday_dataloader'):
        check_from_config(cfg, 'sunday')


REAL = [  # data set, config, classes, split, images, per cent of pixels by class
    ('epfl_roads', 'rs-lvf_camera', ('background', 'road'), 'train', 66, [80.65, 19.35]),
    ('dubai_landcover', 'rs-lvf_camera', ('building', 'land', 'road', 'vegetation', 'water'),
     'train', 45, [13.42, 52.08, 8.80, 11.11, 13.57]),
    ('ade20k_mini', 'ade20k_512x512', None, 'val', 9, None)]


@pytest.mark.data
@pytest.mark.parametrize('name, config, classes, split, count, shares', REAL)
def test_real_folders_have_no_problem(data_root, base_config, name, config, classes, split, count,
                                      shares):
    cfg = base_config(config)
    dataset = cfg[f'{split}_dataloader'].dataset
    dataset.update(data_root=str(data_root / name), data_prefix=dict(
        img_path=f'images/{split}', seg_map_path=f'annotations/{split}'))
    if classes:
        dataset.metainfo = dict(classes=classes)
    report = check_from_config(cfg, split, progress=False)
    assert not report.problems and report.num_images == count
    if shares:
        total = report.pixels.sum() + report.ignored
        np.testing.assert_allclose(100 * report.pixels / total, shares, atol=0.006)
    else:  # id 0, "other", is ignored
        assert report.ignored > 0 and (report.pixels > 0).sum() == 48


def test_images_of_a_batch_have_to_agree_in_size(scenes, build):
    for name in (IMAGE, MASK):
        alter(scenes / name, lambda picture: picture[:-8, :-16])
    steps = [dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations')]
    dataset = build(scenes, pipeline=[*steps, dict(type='PackSegInputs')])
    found, = problems(dataset, split='val', batch_size=3)
    assert 'png 64x80' in found and f'{IMAGE} 56x64' in found
    assert 'val_dataloader.batch_size=1' in found
    assert not problems(dataset, split='val') and not problems(dataset, batch_size=3)
    # Where sides are kept in proportion, they still differ.
    for keep_ratio in (False, True):
        resize = dict(type='Resize', scale=(32, 32), keep_ratio=keep_ratio)
        resized = build(scenes, pipeline=[*steps, resize, dict(type='PackSegInputs')])
        assert bool(problems(resized, split='test', batch_size=3)) == keep_ratio
