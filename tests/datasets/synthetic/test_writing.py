"""Sets on disk."""

import cv2
import numpy as np
import pytest

from bhvit_seg.datasets.synthetic import generate_scene, write_dataset
from bhvit_seg.errors import UserError


def content(root):
    return {path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob('*') if path.is_file()}


def test_files_hold_the_scenes_and_are_the_same_each_time(tmp_path):
    options = dict(n_train=2, n_val=1, size=(40, 48), seed=3)
    write_dataset(tmp_path, **options)
    first = content(tmp_path)
    assert sorted(first) == sorted(
        f'{folder}/{split}/scene_{i:04d}{suffix}'
        for folder, suffix in (('images', '.png'), ('annotations', '.png'), ('lidar', '.tif'))
        for split, count in (('train', 2), ('val', 1)) for i in range(count))
    assert len({data for name, data in first.items() if name.startswith('images')}) == 3
    scene = generate_scene((3, 1, 0), (40, 48))
    for name, layer in (('images/val/scene_0000.png', scene.image[..., ::-1]),
                        ('annotations/val/scene_0000.png', scene.mask),
                        ('lidar/val/scene_0000.tif', scene.height)):
        read = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert read.dtype == layer.dtype and np.array_equal(read, layer)
    write_dataset(tmp_path, **options)
    assert content(tmp_path) == first
    # A smaller set would have scenes of this one.
    with pytest.raises(UserError, match='scene_0001.png'):
        write_dataset(tmp_path, **options | dict(n_train=1))
    assert content(tmp_path) == first
