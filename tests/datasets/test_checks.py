"""Everything that can be wrong with a folder is found, and its file named."""

from __future__ import annotations

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from mmengine import ConfigDict
from mmengine.dataset import ConcatDataset, RepeatDataset

from bhvit_seg.datasets.checks import check_dataset, check_from_config
from bhvit_seg.datasets.report import enet_class_weights
from bhvit_seg.errors import UserError

MASK = 'annotations/train/scene_0001.png'
IMAGE = 'images/train/scene_0001.png'
LIDAR = 'lidar/train/scene_0001.tif'


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def write(path, array):
    assert cv2.imwrite(str(path), array)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def problems(dataset, **options):
    report = check_dataset(dataset, progress=False, **options)
    texts = [str(problem) for problem in report.problems]
    assert all('\n' not in text for text in texts)
    return texts


def test_good_set_has_no_problem_and_right_counts(scenes, build):
    dataset = build(scenes)
    report = check_dataset(dataset, progress=False)
    masks = np.stack([read(p) for p in sorted((scenes / 'annotations/train').iterdir())])
    images = np.stack([read(p) for p in sorted((scenes / 'images/train').iterdir())])
    assert not report.problems and report.num_images == 4 and report.ignored == 0
    assert report.pixels.tolist() == [(masks == 0).sum(), (masks == 1).sum()]
    assert report.images_with_class.tolist() == [4, (masks == 1).any(axis=(1, 2)).sum()]
    pixels = images[..., ::-1].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(report.mean, pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(report.std, pixels.std(axis=0), rtol=1e-9)


def test_pixels_without_data_count_nowhere(scenes, build):
    mask, image = read(scenes / MASK), read(scenes / IMAGE)
    alpha = np.full(mask.shape, 255, np.uint8)
    alpha[:10] = 0
    write(scenes / IMAGE, np.dstack([image, alpha]))
    mask[:10] = 77  # what stands where there is no data is no mistake
    write(scenes / MASK, mask)
    report = check_dataset(build(scenes), progress=False)
    names = sorted(path.name for path in (scenes / 'images/train').iterdir())
    counted = [np.ones(mask.shape, bool) if name not in IMAGE else alpha > 0 for name in names]
    labels, pixels = (np.concatenate([
        read(scenes / folder / name)[..., :3][where] if folder.startswith('images') else
        read(scenes / folder / name)[where] for name, where in zip(names, counted)])
        for folder in ('annotations/train', 'images/train'))
    assert not report.problems and report.ignored == 10 * mask.shape[1]
    assert report.pixels.tolist() == [(labels == 0).sum(), (labels == 1).sum()]
    np.testing.assert_allclose(report.mean, pixels[:, ::-1].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(report.std, pixels[:, ::-1].std(axis=0), rtol=1e-9)


def test_statistics_of_lidar_follow_those_of_the_camera(scenes, build):
    report = check_dataset(build(scenes, lidar=True), progress=False, channels=4)
    heights = np.stack([read(p) for p in sorted((scenes / 'lidar/train').iterdir())])
    assert not report.problems and len(report.mean) == 4
    np.testing.assert_allclose(report.mean[3], heights.astype(float).mean(), rtol=1e-6)
    np.testing.assert_allclose(report.std[3], heights.astype(float).std(), rtol=1e-6)


def damage_missing_mask(root):
    (root / MASK).unlink()
    return rf'{IMAGE} has no mask: .*{MASK} does not exist'


def damage_missing_image(root):
    (root / IMAGE).unlink()
    return rf'{MASK} has no image'


def damage_mask_size(root):
    write(root / MASK, read(root / MASK)[:-4])
    return rf'{MASK} is 60x80 pixels .*{IMAGE} 64x80'


def damage_ids(root):
    mask = read(root / MASK)
    mask[:2, :5] = 7
    mask[2, :3] = 9
    write(root / MASK, mask)
    return rf'{MASK} has ids out of range: 7 \(10 pixels\), 9 \(3 pixels\); expected 0\.\.1 for 2'


def damage_wide_ids(root):
    write(root / MASK, np.full((64, 80), 300, np.uint16))
    return rf'{MASK} has values that mask_encoding \(ids\) does not know: 300 \(5120 pixels\)'


def damage_image(root):
    cut(root / IMAGE)
    return rf'{IMAGE} is truncated'


def damage_mask(root):
    cut(root / MASK)
    return rf'{MASK} is truncated'


def damage_tiny_image(root):
    for name in (IMAGE, MASK):
        write(root / name, read(root / name)[:3])
    return rf'{IMAGE} is 3x80 pixels, smaller than one 4x4 patch'


@pytest.mark.parametrize('damage', [
    damage_missing_mask, damage_missing_image, damage_mask_size, damage_ids, damage_wide_ids,
    damage_image, damage_mask, damage_tiny_image
])
def test_damage_is_found_and_named(scenes, build, damage):
    import re
    expected = damage(scenes)
    found = problems(build(scenes))
    assert len(found) == 1 and re.search(expected, found[0]), found


def test_damaged_lidar_is_found_and_named(scenes, build):
    write(scenes / LIDAR, read(scenes / LIDAR)[:, :-1])
    assert f'{LIDAR} is 64x79 pixels' in problems(build(scenes, lidar=True))[0]
    cut(scenes / LIDAR)
    assert LIDAR in problems(build(scenes, lidar=True))[0]
    (scenes / LIDAR).unlink()
    assert f'{LIDAR} does not exist' in problems(build(scenes, lidar=True))[0]


def test_number_of_channels_is_compared_with_the_model(scenes, build):
    assert f'{IMAGE.replace("1", "0")} has 3 channels' in problems(build(scenes), channels=4)[0]
    assert len(problems(build(scenes, lidar=True), channels=5)) == 4
    assert not problems(build(scenes), channels=3)


def test_number_of_classes_is_compared_with_the_heads(scenes, build):
    assert 'num_classes=150' in problems(build(scenes), head_classes=(2, 150))[0]


def test_all_problems_are_collected_and_some_shown(scenes, build):
    for path in (scenes / 'annotations/train').iterdir():
        path.unlink()
    report = check_dataset(build(scenes), progress=False)
    assert len(report.problems) == 4
    text = report.summary(max_problems=3)
    assert text.count('problem: ') == 3 and '... and 1 more' in text
    assert '(3 more problem(s))' in report.first_problem()


def test_0_and_255_read_as_ids_is_recognised(scenes, build):
    for path in (scenes / 'annotations/train').iterdir():
        write(path, read(path) * 255)
    found = problems(build(scenes))
    assert len(found) == 1 and "mask_encoding='binary255'" in found[0]
    assert not problems(build(scenes, mask_encoding='binary255'))


@pytest.mark.parametrize('fill, options, words', [
    (255, {}, ["hold only 255", "mask_encoding='binary255'"]),
    (0, dict(reduce_zero_label=True), ['no pixel of the train masks', 'hold 0']),
    (1, dict(metainfo=dict(classes=('road',))), ['no pixel', "has only 'road'"]),
])
def test_masks_without_any_labelled_pixel(scenes, build, fill, options, words):
    for path in (scenes / 'annotations/train').iterdir():
        write(path, np.full_like(read(path), fill))
    dataset = build(scenes, **options)
    if 'metainfo' in options:
        dataset.label_map = {1: 255}
        words = words[1:]  # ids are out of range, too
    found = problems(dataset)
    assert all(any(word in text for text in found) for word in words), found


def test_one_class_is_not_advised_to_lose_the_other(scenes, build):
    report = check_dataset(build(scenes, metainfo=dict(classes=('road',))), progress=False)
    assert "classes=('background', 'road')" in str(report.problems[0])
    assert not any('reduce_zero_label' in text for text in map(str, (
        *report.problems, *report.warnings)))


@pytest.mark.parametrize('encoding', ['ids', 'threshold', 'binary255'])
def test_masks_in_colours_are_told_how_to_be_read(scenes, build, encoding):
    for path in (scenes / 'annotations/train').iterdir():
        colours = np.full((*read(path).shape, 3), (60, 70, 80), np.uint8)
        colours[:9] = 0, 0, 255
        write(path, colours)
    found = problems(build(scenes, mask_encoding=encoding))
    advice = "mask_encoding={'#50463C': 'background', '#FF0000': 'road'}"
    assert advice in found[0] and 'scene_0000.png' in found[0] and len(found) == 5
    assert not problems(build(scenes, mask_encoding={'#50463C': 'background', '#FF0000': 'road'}))


def test_images_of_a_batch_have_to_agree_in_size(scenes, build):
    for name in (IMAGE, MASK):
        write(scenes / name, read(scenes / name)[:-8, :-16])
    pipeline = [dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations')]
    dataset = build(scenes, pipeline=[*pipeline, dict(type='PackSegInputs')])
    found, = problems(dataset, split='val', batch_size=3)
    for words in ('val_dataloader.batch_size is 3', '64x80', f'{IMAGE} (height x width)'):
        assert words.replace(' (height x width)', '') in found
    assert '56x64' in found and 'val_dataloader.batch_size=1' in found
    assert not problems(dataset, split='val') and not problems(dataset, batch_size=3)
    resized = [*pipeline, dict(type='Resize', scale=(32, 32)), dict(type='PackSegInputs')]
    assert not problems(build(scenes, pipeline=resized), split='test', batch_size=3)
    # Sides are kept in proportion, so that they still differ.
    resized[2]['keep_ratio'] = True
    assert problems(build(scenes, pipeline=resized), split='test', batch_size=2)


def test_ids_from_1_are_recognised(scenes, build):
    for path in (scenes / 'annotations/train').iterdir():
        write(path, read(path) + 1)
    report = check_dataset(build(scenes), progress=False)
    assert report.problems and 'reduce_zero_label=True' in report.warnings[0]
    report = check_dataset(build(scenes, reduce_zero_label=True), progress=False)
    assert not report.problems and report.pixels.sum() == 4 * 64 * 80


def test_empty_class_is_a_warning(scenes, build):
    report = check_dataset(build(scenes, metainfo=dict(classes=('a', 'b', 'pond'))),
                           progress=False)
    assert not report.problems and 'pond (2)' in report.warnings[0]


def test_missing_masks_are_a_problem_only_where_needed(scenes, build):
    shutil.rmtree(scenes / 'annotations')
    dataset = build(scenes, test_mode=True)
    assert 'have no masks' in problems(dataset, split='test')[0]
    assert not problems(dataset, split='test', needs_masks=False)


def test_wrapped_datasets_are_looked_into(scenes, build):
    (scenes / MASK).unlink()
    for wrapped, count in ((ConcatDataset([build(scenes), build(scenes, indices=1)]), 5),
                           (RepeatDataset(build(scenes), 3), 4)):
        report = check_dataset(wrapped, progress=False)
        assert report.num_images == count and len(report.problems) == 1


def test_list_of_names_leaves_masks_out_on_purpose(scenes, build):
    (scenes / 'list.txt').write_text('scene_0000')
    assert not problems(build(scenes, ann_file='list.txt'))


@pytest.fixture
def readings(monkeypatch):
    """Paths of the images that are really read."""
    from bhvit_seg.datasets import sample_check
    read, paths = sample_check.read_pixels, []
    monkeypatch.setattr(sample_check, 'read_pixels',
                        lambda path, *rest: (paths.append(path), read(path, *rest))[1])
    return paths


def test_unchanged_files_are_read_once(scenes, build, tmp_path, readings):
    cache = tmp_path / 'cache.json'
    first = check_dataset(build(scenes), cache_file=cache, progress=False)
    assert len(readings) == 4
    again = check_dataset(build(scenes), cache_file=cache, progress=False)
    assert len(readings) == 4 and again.summary() == first.summary()

    os.utime(scenes / MASK, ns=(1, 1))
    check_dataset(build(scenes), cache_file=cache, progress=False)
    assert len(readings) == 5 and readings[-1].endswith(IMAGE)

    (scenes / MASK).unlink()
    assert len(problems(build(scenes), cache_file=cache)) == 1
    assert len(problems(build(scenes), cache_file=cache)) == 1 and len(readings) == 6

    check_dataset(build(scenes, mask_encoding='threshold'), cache_file=cache, progress=False)
    assert len(readings) == 10


@pytest.mark.parametrize('content', ['', '{', '[]', '{"version": 1}', 'null'])
def test_unreadable_cache_is_made_anew(scenes, build, tmp_path, content):
    cache = tmp_path / 'cache.json'
    cache.write_text(content)
    assert not problems(build(scenes), cache_file=cache)
    assert len(json.loads(cache.read_text())['files']) == 4


@pytest.mark.parametrize('pixels', [[10, 10], [99, 1], [5, 0, 20], [1000000, 1, 3, 500]])
def test_class_weights_are_those_of_enet(pixels):
    share = np.array(pixels) / sum(pixels)
    weights = np.array(enet_class_weights(np.array(pixels)))
    there = share > 0
    # The ratios are ENet's; the mean over pixels is 1.
    enet = 1 / np.log(1.02 + share)
    np.testing.assert_allclose((weights / weights[0])[there], (enet / enet[0])[there])
    assert (weights * share).sum() == pytest.approx(1) and (weights[~there] == 1).all()


def test_class_weights_without_pixels():
    assert enet_class_weights(np.zeros(3)) == [1.0, 1.0, 1.0]


def test_config_is_checked(scenes, base_config):
    cfg = base_config('rs-lvf_camera-lidar')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(scenes)
    for split, count in (('train', 4), ('val', 2)):
        report = check_from_config(cfg, split, progress=False)
        assert not report.problems and report.num_images == count
    cfg.model = ConfigDict(decode_head=dict(num_classes=2), auxiliary_head=[dict(num_classes=7)],
                           data_preprocessor=dict(mean=[0] * 6))
    report = check_from_config(cfg, 'train', progress=False)
    assert len(report.problems) == 5


def test_config_without_data_is_one_sentence(tmp_path, base_config):
    for name in ('rs-lvf_camera', 'ade20k_512x512'):
        cfg = base_config(name)
        cfg.train_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
        with pytest.raises(UserError, match='nowhere.*--data-root') as error:
            check_from_config(cfg, progress=False)
        assert '\n' not in str(error.value)
        cfg.train_dataloader.dataset.data_root = str(tmp_path)
        with pytest.raises(UserError, match='image folder'):
            check_from_config(cfg, progress=False)
    with pytest.raises(UserError, match='no sunday_dataloader'):
        check_from_config(cfg, 'sunday')


def test_wrong_dataset_argument_is_one_sentence(scenes, base_config):
    cfg = base_config('rs-lvf_camera')
    cfg.train_dataloader.dataset.update(data_root=str(scenes), mask_encoding='auto')
    with pytest.raises(UserError, match="^mask_encoding='auto'"):
        check_from_config(cfg, progress=False)


REAL = {
    'epfl_roads': (('background', 'road'), {'train': [80.65, 19.35], 'val': [77.13, 22.87]}, 66),
    'dubai_landcover': (('building', 'land', 'road', 'vegetation', 'water'), {
        'train': [13.42, 52.08, 8.80, 11.11, 13.57], 'val': [15.90, 42.03, 11.25, 8.52, 21.42]
    }, 45),
}


@pytest.mark.data
@pytest.mark.parametrize('name', REAL)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_folders_have_no_problem(data_root, base_config, name, split):
    classes, shares, count = REAL[name]
    cfg = base_config('rs-lvf_camera')
    cfg[f'{split}_dataloader'].dataset.update(data_root=str(data_root / name),
                                              metainfo=dict(classes=classes))
    report = check_from_config(cfg, split, progress=False)
    assert not report.problems and not report.warnings
    total = report.pixels.sum() + report.ignored
    np.testing.assert_allclose(100 * report.pixels / total, shares[split], atol=0.006)
    assert split == 'val' or report.num_images == count


@pytest.mark.data
def test_real_ade20k_has_no_problem(data_root, base_config):
    cfg = base_config('ade20k_512x512')
    for split, count, present in (('train', 28, 76), ('val', 9, 48)):
        cfg[f'{split}_dataloader'].dataset.update(
            data_root=str(data_root / 'ade20k_mini'),
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'))
        report = check_from_config(cfg, split, progress=False)
        assert not report.problems and report.num_images == count
        assert (report.pixels > 0).sum() == present
        # Id 0, "other", is ignored: label 0 is wall, the most frequent class of train.
        assert report.ignored > 0 and (split == 'val' or report.pixels.argmax() == 0)
