"""Scenes follow from their seed and keep what their description promises."""

from __future__ import annotations

import numpy as np
import pytest

from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.datasets.synthetic.scene import _shadow
from bhvit_seg.errors import UserError


@pytest.fixture(scope='module')
def many_scenes():
    return [generate_scene(seed, (128, 128)) for seed in range(24)]


def test_same_seed_same_scene_other_seed_another():
    first, again, other = (generate_scene(seed, (64, 64)) for seed in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(first, again))
    assert (first.image != other.image).any() and (first.mask != other.mask).any()


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 200), (300, 90)])
def test_any_size(size):
    for seed in range(5):
        scene = generate_scene(seed, size)
        assert scene.image.shape == (*size, 3) and scene.image.dtype == np.uint8
        assert scene.mask.shape == size and scene.mask.dtype == np.uint8
        assert scene.height.shape == size and scene.height.dtype == np.float32


def test_too_small_a_size_is_refused():
    with pytest.raises(UserError, match=r'\(16, 200\)'):
        generate_scene(0, (16, 200))


def test_masks_hold_road_and_background_in_reasonable_shares(many_scenes):
    shares = [scene.mask.mean() for scene in many_scenes]
    assert {int(v) for scene in many_scenes for v in np.unique(scene.mask)} == {0, 1}
    assert 0.05 < np.mean(shares) < 0.3 and min(shares) > 0


def test_heights_are_those_of_houses_and_trees(many_scenes):
    heights = np.stack([scene.height for scene in many_scenes])
    assert heights.min() == 0 and 5 < heights.max() < 25
    assert (heights * 64 == np.round(heights * 64)).all()
    # Roads are on the ground, but for cars and the crowns above them.
    on_road = heights[np.stack([scene.mask for scene in many_scenes]) == 1]
    assert (on_road == 0).mean() > 0.6
    assert (on_road > 3).any()


def test_colour_alone_does_not_tell_a_road(many_scenes):
    """The best threshold on brightness and saturation together leaves much to learn."""
    pixels = np.concatenate([s.image[::2, ::2].reshape(-1, 3) for s in many_scenes]) // 32
    labels = np.concatenate([s.mask[::2, ::2].ravel() for s in many_scenes])
    bins = (pixels.astype(int) * [64, 8, 1]).sum(axis=1)
    road = np.bincount(bins, labels, 512) > np.bincount(bins, 1 - labels, 512)
    predicted = road[bins]
    iou = (predicted & (labels == 1)).sum() / (predicted | (labels == 1)).sum()
    assert iou < 0.7


@pytest.mark.parametrize('sun, expected', [((1, 0), (10, 6)), ((-1, 0), (10, 14)),
                                           ((0, 1), (6, 10)), ((0, -1), (14, 10))])
def test_shadow_falls_away_from_the_sun(sun, expected):
    height = np.zeros((21, 21), np.float32)
    height[10, 10] = 4.0
    # A ray that rises 0.5 m a pixel: the shadow of 4 m is 8 pixels long, and nowhere else.
    shadow = _shadow(height, np.array(sun, float), slope=1.0)
    assert shadow[expected] == 1
    length = int(shadow.sum())
    assert length == 7 and shadow[10, 10] == 0


def test_shadows_are_darker(many_scenes):
    """Pixels on the ground right behind something high are darker for one direction of the sun."""
    ratios = []
    for scene in many_scenes:
        grey = scene.image.astype(float).mean(axis=2)
        ground = (scene.height == 0)
        contrast = []
        for dy, dx in ((0, 6), (6, 0), (0, -6), (-6, 0)):
            behind = ground & (np.roll(scene.height, (dy, dx), (0, 1)) > 3)
            if behind.sum() > 50:
                contrast.append(grey[behind].mean() / grey[ground].mean())
        if len(contrast) == 4:
            ratios.append(min(contrast) / max(contrast))
    assert len(ratios) > 10 and np.median(ratios) < 0.85
