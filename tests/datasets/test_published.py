"""Published data sets are read as their publishers describe them; other layouts are refused."""

import shutil

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from published_layouts import LABELS, write_layout

import bhvit_seg.modules  # noqa: F401
from bhvit_seg.datasets.checks import check_from_config
from bhvit_seg.errors import UserError
from bhvit_seg.training.config import load_config


def read(data, root):
    return load_config(f'bhvit-tiny_segformer_1xb8-20k_{data}-448x448', data_root=str(root))


@pytest.mark.parametrize('data', LABELS)
def test_labels_are_the_publisher_s(data, tmp_path):
    truth = write_layout(tmp_path, data)
    cfg = read(data, tmp_path)
    for split, masks in zip(('train', 'val'), truth.values()):
        report = check_from_config(cfg, split, progress=False)
        assert report.problems == report.warnings == [] and report.num_images == 2
        classes = len(report.classes)
        assert report.pixels.tolist() == np.bincount(
            np.ravel(masks), minlength=256)[:classes].tolist() and report.pixels.all()
        dataset = DATASETS.build({**cfg[f'{split}_dataloader'].dataset, 'pipeline': [
            dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations')]})
        assert len(dataset.metainfo['palette']) == classes
        for index, mask in enumerate(masks):
            sample = dataset[index]
            assert sample['img'].shape == (*mask.shape, 3)
            assert (sample['gt_seg_map'] == mask).all()


def colour(root):
    path = root / 'ann_dir/train/trainton_1.png'
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), np.dstack([ids * 30, ids * 20, ids * 10]))


def move(old, new):
    return lambda root: (root / old).rename(root / new)


def remove(name):
    return lambda root: (root / name).unlink()


@pytest.mark.parametrize('data, damage, words', [
    ('loveda', move('img_dir', 'Train'), 'img_dir/train'),
    ('potsdam', colour, 'docs/datasets.md'),
    ('vaihingen', lambda root: [move(path, path.with_suffix('.tif'))(root)
                                for path in root.glob('img_dir/*/*')], "ending in .png"),
    ('isaid', move('ann_dir/train/trainton_1_instance_color_RGB.png', 'ann_dir/train/a.png'),
     'trainton_1_instance_color_RGB.png'),
    ('deepglobe-roads', remove('train.txt'), 'train.txt'),
    ('deepglobe-roads', remove('train/trainton_2_mask.png'), 'trainton_2_mask.png'),
    ('massachusetts-roads-original', move('train/map', 'train/maps'), 'train/map'),
    ('landcover-ai', remove('output/trainton_2.jpg'), "'trainton_2'"),
    ('openearthmap', move('trainton/images', 'trainton/photos'), "'trainton_1.tif'"),
    ('openearthmap', remove('trainton/labels/trainton_2.tif'), 'trainton/labels/trainton_2.tif'),
    *((data, shutil.rmtree, '') for data in LABELS)])
def test_other_layouts_are_refused_in_a_sentence(data, damage, words, tmp_path):
    write_layout(tmp_path / data, data)
    damage(tmp_path / data)
    try:
        problems = check_from_config(read(data, tmp_path / data), progress=False).problems
    except UserError as error:
        problems = [str(error)]
    assert words in problems[0] and data in problems[0] and '\n' not in problems[0]


def test_a_folder_for_images_and_masks_needs_no_list(tmp_path):
    write_layout(tmp_path, 'openearthmap')
    cfg = read('openearthmap', tmp_path)
    cfg.train_dataloader.dataset.ann_file = ''
    report = check_from_config(cfg, progress=False)
    assert report.num_images == 4 and report.problems == []
