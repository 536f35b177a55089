"""clDice against a plain implementation of the paper's algorithm and numbers made by hand."""

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from scipy import ndimage

from bhvit_seg.errors import UserError
from bhvit_seg.models.losses import CLDiceLoss
from bhvit_seg.models.losses.cl_dice import soft_skeleton


def plain_skeleton(image, iterations):
    """Algorithm 1 of the paper."""
    skeleton = np.zeros_like(image)
    for _ in range(iterations + 1):
        eroded = ndimage.minimum_filter(
            image, footprint=ndimage.generate_binary_structure(2, 1), mode='nearest')
        thin = np.maximum(image - ndimage.maximum_filter(eroded, 3, mode='nearest'), 0)
        skeleton, image = skeleton + (1 - skeleton) * thin, eroded
    return skeleton


def logits_of(road):
    """Logits whose softmax is 0 or 1."""
    return torch.stack([torch.zeros_like(road), 200 * road - 100], 1)


def loss_of(prediction, label, **kwargs):
    return CLDiceLoss(**{'iterations': 3, **kwargs})(logits_of(prediction), label).item()


@pytest.fixture
def road():
    """A road one pixel wide through each of two images."""
    label = torch.zeros(2, 12, 20, dtype=torch.long)
    label[0, 5] = label[1, :, 3] = 1
    return label


@pytest.mark.parametrize('iterations', [1, 2, 5])
def test_soft_skeleton_is_the_paper_s(iterations):
    maps = torch.rand(2, 2, 9, 14, dtype=torch.float64)
    expected = [[plain_skeleton(m.numpy(), iterations) for m in image] for image in maps]
    np.testing.assert_allclose(soft_skeleton(maps, iterations).numpy(), expected, rtol=1e-12)


def test_a_gap_costs_its_share_of_the_centre_line(road):
    broken = road.float()
    broken[0, 5, 8:12] = 0
    length = 20 + 12
    recall = (length - 4 + 1) / (length + 1)
    dice = (2 * (length - 4) + 1) / (2 * length - 4 + 1)
    expected = 0.5 * (1 - dice) + 0.5 * (1 - 2 * recall / (1 + recall))
    assert loss_of(broken, road) == pytest.approx(expected, abs=1e-5)
    assert loss_of(broken, road, alpha=1., loss_weight=3.) == pytest.approx(
        3 * (1 - 2 * recall / (1 + recall)), abs=1e-5)
    assert loss_of(road.float(), road) == pytest.approx(0, abs=1e-6)


def test_images_without_roads_and_without_pixels():
    nothing = torch.zeros(1, 12, 20, dtype=torch.long)
    assert loss_of(nothing.float(), nothing) == pytest.approx(0, abs=1e-6)
    logits = torch.randn(1, 2, 12, 20, requires_grad=True)
    loss = CLDiceLoss()(logits, torch.full_like(nothing, 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0


def test_what_stands_at_ignored_pixels_is_without_effect(road):
    road[:, :, 6:11] = 255
    logits = torch.randn(2, 2, 12, 20, requires_grad=True)
    loss = MODELS.build(dict(type='CLDiceLoss', iterations=3))
    before = loss(logits, road)
    before.backward()
    assert logits.grad[..., 6:11].abs().sum() == 0 and logits.grad[..., 11].abs().sum() > 0
    with torch.no_grad():
        logits[..., 6:11] = 50 * torch.randn(2, 2, 12, 5)
    assert torch.equal(loss(logits, road), before)


def test_one_channel_is_that_of_a_sigmoid_and_classes_are_averaged(road):
    logits = torch.randn(2, 1, 12, 20)
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    assert torch.equal(CLDiceLoss()(logits, road), CLDiceLoss()(two, road))
    road[1][road[1] == 1] = 2
    logits = torch.randn(2, 3, 12, 20)
    both, first, second = (CLDiceLoss(classes=c)(logits, road) for c in ([1, 2], [1], [2]))
    torch.testing.assert_close(both, (first + second) / 2)


def test_bad_arguments_are_named(road):
    with pytest.raises(UserError, match='alpha=1.5'):
        CLDiceLoss(alpha=1.5)
    with pytest.raises(UserError, match=r'classes is \[2\], but the head has 2'):
        CLDiceLoss(classes=[2])(torch.zeros(2, 2, 12, 20), road)
    with pytest.raises(UserError, match='CLDiceLoss.*OHEMPixelSampler'):
        CLDiceLoss()(torch.zeros(2, 2, 12, 20), road, reduction_override='none')
