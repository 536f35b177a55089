"""Weighted cross-entropy against torch's own, and where that has no answer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from bhvit_seg.errors import UserError

WEIGHTS = [0.5, 2.0, 1.0]


@pytest.fixture
def batch():
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    label = torch.randint(0, 3, (2, 4, 5))
    label[0, :2] = 255
    return logits, label


@pytest.mark.parametrize('weights', [None, WEIGHTS])
def test_it_is_torchs_weighted_mean_over_counted_pixels(batch, weights):
    loss = MODELS.build(dict(type='WeightedCrossEntropyLoss', class_weight=weights,
                             loss_weight=0.4))
    value = loss(*batch, ignore_index=255)
    expected = 0.4 * F.cross_entropy(
        *batch, None if weights is None else torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, batch[0]),
                               torch.autograd.grad(expected, batch[0]))
    assert loss.loss_name == 'loss_ce'


def test_pixel_weights_count_like_repeated_pixels(batch):
    logits, label = batch
    loss = MODELS.build(dict(type='WeightedCrossEntropyLoss', class_weight=WEIGHTS))
    weight = torch.zeros(2, 4, 5)
    weight[1] = 3
    torch.testing.assert_close(loss(logits, label, weight), loss(logits[1:], label[1:]))


def test_a_batch_without_counted_pixels_gives_zero():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = MODELS.build(dict(type='WeightedCrossEntropyLoss', class_weight=WEIGHTS))
    value = loss(logits, torch.full((1, 2, 2), 255))
    value.backward()
    assert value.item() == 0 and logits.grad.abs().sum() == 0


def test_wrong_number_of_weights_is_named(batch):
    loss = MODELS.build(dict(type='WeightedCrossEntropyLoss', class_weight=[1., 2.]))
    with pytest.raises(UserError, match='2 values for 3 classes'):
        loss(*batch)


def test_one_channel_is_that_of_a_sigmoid():
    logits = torch.randn(2, 1, 3, 4, requires_grad=True)
    label = torch.randint(0, 2, (2, 3, 4))
    label[1, 0] = 255
    loss = MODELS.build(dict(type='WeightedCrossEntropyLoss', class_weight=[1.0, 3.0]))
    counted = label != 255
    weight = torch.where(label == 1, 3.0, 1.0)[counted]
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0][counted], label[counted].float(), weight, reduction='sum') / weight.sum()
    torch.testing.assert_close(loss(logits, label), expected)


@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
def test_reductions_that_samplers_ask_for(batch, reduction):
    loss = MODELS.build(dict(type='WeightedCrossEntropyLoss', class_weight=WEIGHTS,
                             loss_weight=0.4))
    expected = 0.4 * F.cross_entropy(*batch, torch.tensor(WEIGHTS), ignore_index=255,
                                     reduction=reduction)
    torch.testing.assert_close(loss(*batch, reduction_override=reduction), expected)


def test_reductions_that_a_loss_lacks_are_named(batch):
    loss = MODELS.build(dict(type='WeightedCrossEntropyLoss'))
    with pytest.raises(UserError, match="'median'"):
        loss(*batch, reduction_override='median')
    with pytest.raises(UserError, match='CLDiceLoss.*OHEMPixelSampler'):
        MODELS.build(dict(type='CLDiceLoss'))(*batch, reduction_override='none')
