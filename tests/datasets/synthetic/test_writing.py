"""Sets on disk."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bhvit_seg.datasets.synthetic import generate_scene, write_ade20k_like, write_dataset
from bhvit_seg.errors import UserError


def content(root):
    return {path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob('*') if path.is_file()}


def test_files_hold_the_scenes(tmp_path):
    write_dataset(tmp_path, n_train=2, n_val=1, size=(40, 48), seed=3)
    assert sorted(content(tmp_path)) == sorted(
        f'{folder}/{split}/scene_{i:04d}{suffix}'
        for folder, suffix in (('images', '.png'), ('annotations', '.png'), ('lidar', '.tif'))
        for split, count in (('train', 2), ('val', 1)) for i in range(count))
    scene = generate_scene((3, 1, 0), (40, 48))
    read = [cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
            for name in ('images/val/scene_0000.png', 'annotations/val/scene_0000.png',
                         'lidar/val/scene_0000.tif')]
    assert (read[0][..., ::-1] == scene.image).all()
    assert (read[1] == scene.mask).all()
    assert read[2].dtype == np.float32 and (read[2] == scene.height).all()


def test_repeating_writes_the_same_bytes_and_splits_differ(tmp_path):
    write_dataset(tmp_path / 'a', n_train=2, n_val=2, size=(32, 32))
    first = content(tmp_path / 'a')
    write_dataset(tmp_path / 'a', n_train=2, n_val=2, size=(32, 32))
    assert first and content(tmp_path / 'a') == first
    images = [data for name, data in first.items() if name.startswith('images')]
    assert len(set(images)) == 4


def test_without_lidar(tmp_path):
    write_dataset(tmp_path, n_train=1, n_val=0, size=(32, 32), lidar=False)
    assert not (tmp_path / 'lidar').exists()


def test_folder_with_other_files_is_left_alone(tmp_path):
    write_dataset(tmp_path, n_train=3, n_val=0, size=(32, 32))
    before = content(tmp_path)
    with pytest.raises(UserError, match='scene_0002.png'):
        write_dataset(tmp_path, n_train=2, n_val=0, size=(32, 32))
    assert content(tmp_path) == before


def test_negative_count_is_refused(tmp_path):
    with pytest.raises(UserError, match='n_val=-1'):
        write_dataset(tmp_path, n_val=-1)


def test_ade20k_like_set(tmp_path):
    write_ade20k_like(tmp_path, n_train=3, n_val=2, seed=1)
    images = sorted((tmp_path / 'images').rglob('*.jpg'))
    masks = sorted((tmp_path / 'annotations').rglob('*.png'))
    assert [p.stem for p in images] == [p.stem for p in masks] and len(images) == 5
    assert {p.parent.name for p in images} == {'training', 'validation'}
    for image, mask in zip(images, masks):
        ids = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        assert ids.ndim == 2 and ids.max() <= 150
        assert cv2.imread(str(image)).shape[:2] == ids.shape
