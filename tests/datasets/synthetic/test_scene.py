"""Scenes follow from their seed and keep what their description promises; sets on disk."""

import cv2
import numpy as np
import pytest

from bhvit_seg.datasets.synthetic import generate_scene, write_dataset
from bhvit_seg.errors import UserError


@pytest.fixture(scope='module')
def many_scenes():
    return [generate_scene(seed, (128, 128)) for seed in range(24)]


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 200), (300, 90)])
def test_any_size_and_the_same_scene_for_the_same_seed(size):
    scenes = [generate_scene(seed, size) for seed in range(3)]
    for seed, scene in enumerate(scenes):
        for layer, again, dtype, shape in zip(scene, generate_scene(seed, size), (
                np.uint8, np.uint8, np.float32), ((*size, 3), size, size)):
            assert layer.dtype == dtype and layer.shape == shape and (layer == again).all()
    assert (scenes[0].image != scenes[1].image).any()


def test_too_small_a_size_is_refused():
    with pytest.raises(UserError, match=r'\(16, 200\)'):
        generate_scene(0, (16, 200))


def test_roads_are_on_the_ground_and_objects_above_it(many_scenes):
    masks, heights = (np.stack([getattr(scene, name) for scene in many_scenes])
                      for name in ('mask', 'height'))
    assert np.unique(masks).tolist() == [0, 1]
    assert 0.05 < masks.mean() < 0.3 and masks.any(axis=(1, 2)).all()
    assert heights.min() == 0 and 5 < heights.max() < 25
    assert (heights * 64 == np.round(heights * 64)).all()
    # But for cars and the crowns above them.
    assert (heights[masks == 1] == 0).mean() > 0.6 and (heights[masks == 1] > 3).any()


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
