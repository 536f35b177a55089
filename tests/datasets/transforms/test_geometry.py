"""Crops stay inside, keep image and mask together, and favour what they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bhvit_seg.datasets.transforms import CenterCropEvaluation, RandomScaleCrop
from bhvit_seg.errors import UserError

SIDES = st.integers(1, 70)


def sample(height, width, channels=3):
    """Pixels that know where they are: channels 0 and 1 are row and column, the mask as well."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows, columns] + [rows] * (channels - 2), axis=2).astype(np.float32)
    return dict(img=image, gt_seg_map=(rows % 16 * 16 + columns % 16).astype(np.uint8),
                seg_fields=['gt_seg_map'])


def rare(height, width, row, column):
    """One pixel of class 1."""
    result = sample(height, width)
    result['gt_seg_map'] = np.zeros((height, width), np.uint8)
    result['gt_seg_map'][row, column] = 1
    return result


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.floats(0.3, 3), st.integers(0, 2**31 - 1))
def test_any_tile_gives_a_crop_of_at_most_the_size(height, width, crop_h, crop_w, ratio, seed):
    np.random.seed(seed)
    result = RandomScaleCrop((crop_h, crop_w), (ratio, ratio))(sample(height, width, 5))
    shape = result['img'].shape[:2]
    assert result['gt_seg_map'].shape == result['img_shape'] == shape
    assert result['img'].shape[2] == 5
    for side, crop, tile in zip(shape, (crop_h, crop_w), (height, width)):
        # Smaller than asked for only where the tile, scaled, ends.
        assert 1 <= side <= crop and side in (crop, max(round(tile * ratio), 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 70), st.integers(40, 70), st.integers(0, 2**31 - 1))
def test_without_scaling_the_crop_is_a_window(height, width, seed):
    np.random.seed(seed)
    whole = sample(height, width)
    result = RandomScaleCrop((33, 25), (1.0, 1.0))(dict(whole))
    top, left = result['img'][0, 0, :2].astype(int)
    for key in ('img', 'gt_seg_map'):
        assert (result[key] == whole[key][top:top + 33, left:left + 25]).all()


@pytest.mark.parametrize('ratio', [0.5, 2.0])
def test_scale_is_that_of_the_picture(ratio):
    result = RandomScaleCrop(24, (ratio, ratio))(sample(100, 100))
    step = np.diff(result['img'][4:-4, 10, 0])
    np.testing.assert_allclose(step, 1 / ratio, atol=1e-3)
    assert result['scale_factor'] == pytest.approx((ratio, ratio))


@pytest.mark.parametrize('prob, least, most', [(0.0, 0.0, 0.1), (0.5, 0.35, 0.65), (1.0, 1, 1)])
def test_favoured_pixel_is_inside_that_often(prob, least, most):
    np.random.seed(0)
    crop = RandomScaleCrop(32, (1.0, 1.0), favoured_classes=[1], favour_prob=prob)
    share = np.mean([(crop(rare(200, 160, 197, 3))['gt_seg_map'] == 1).any() for _ in range(200)])
    assert least <= share <= most


@pytest.mark.parametrize('options', [
    dict(crop_size=0), dict(crop_size=(3, 4, 5)), dict(crop_size=(3.0, 4)),
    dict(crop_size=8, ratio_range=(2, 1)), dict(crop_size=8, ratio_range=(0, 1)),
    dict(crop_size=8, favour_prob=1.5)])
def test_wrong_arguments_are_refused(options):
    with pytest.raises(UserError, match='expected'):
        RandomScaleCrop(**options)


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES)
def test_centre_crop_moves_the_scored_shape_along(height, width):
    result = CenterCropEvaluation((24, 20))(dict(sample(height, width), ori_shape=(999, 999)))
    shape = (min(height, 24), min(width, 20))
    assert result['img'].shape[:2] == result['gt_seg_map'].shape == shape
    assert result['ori_shape'] == result['img_shape'] == shape
    assert tuple(result['img'][0, 0, :2]) == (max(height - 24, 0) // 2, max(width - 20, 0) // 2)
