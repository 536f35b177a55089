"""Weighted cross-entropy against torch's own, and where that has no answer."""

import pytest
import torch
import torch.nn.functional as F

from bhvit_seg.errors import UserError
from bhvit_seg.models.losses import WeightedCrossEntropyLoss

WEIGHTS = [0.5, 2.0, 1.0]


@pytest.fixture
def batch():
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    label = torch.randint(0, 3, (2, 4, 5))
    label[0, :2] = 255
    return logits, label


@pytest.mark.parametrize('reduction', [None, 'none', 'sum', 'mean'])
@pytest.mark.parametrize('weights', [None, WEIGHTS])
def test_it_is_torchs_weighted_mean_over_counted_pixels(batch, weights, reduction):
    loss = WeightedCrossEntropyLoss(weights, loss_weight=0.4)
    value = loss(*batch, ignore_index=255, reduction_override=reduction)
    expected = 0.4 * F.cross_entropy(
        *batch, None if weights is None else torch.tensor(weights), ignore_index=255,
        reduction=reduction or 'mean')
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), batch[0]),
                               torch.autograd.grad(expected.sum(), batch[0]))
    assert loss.loss_name == 'loss_ce'


def test_pixel_weights_count_like_repeated_pixels(batch):
    logits, label = batch
    loss, weight = WeightedCrossEntropyLoss(WEIGHTS), torch.zeros(2, 4, 5)
    weight[1] = 3
    torch.testing.assert_close(loss(logits, label, weight), loss(logits[1:], label[1:]))


def test_a_batch_without_counted_pixels_gives_zero(batch):
    value = WeightedCrossEntropyLoss(WEIGHTS)(batch[0], torch.full((2, 4, 5), 255))
    value.backward()
    assert value.item() == 0 and batch[0].grad.abs().sum() == 0


def test_one_channel_is_that_of_a_sigmoid():
    logits = torch.randn(2, 1, 3, 4)
    label = torch.randint(0, 2, (2, 3, 4))
    label[1, 0] = 255
    counted = label != 255
    weight = torch.where(label == 1, 3.0, 1.0)[counted]
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0][counted], label[counted].float(), weight, reduction='sum') / weight.sum()
    torch.testing.assert_close(WeightedCrossEntropyLoss([1.0, 3.0])(logits, label), expected)


def test_wrong_arguments_are_named(batch):
    with pytest.raises(UserError, match='2 values for 3 classes'):
        WeightedCrossEntropyLoss([1., 2.])(*batch)
    with pytest.raises(UserError, match="'median'"):
        WeightedCrossEntropyLoss()(*batch, reduction_override='median')
