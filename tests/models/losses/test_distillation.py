"""Distillation losses against sums over single pixels."""

import math

import pytest
import torch

from bhvit_seg.errors import UserError
from bhvit_seg.models.losses import FeatureDistillationLoss, PixelDistillationLoss


@pytest.fixture
def batch():
    student = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    label = torch.randint(0, 3, (2, 4, 5))
    label[0, :2] = label[1, :, 4] = 255
    return student, teacher, label


def probabilities(logits, temperature):
    powers = [math.exp(value / temperature) for value in logits.tolist()]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize('temperature', [1, 2.5])
def test_divergence_is_the_mean_over_counted_pixels(batch, temperature):
    student, teacher, label = batch
    terms = []
    for image, row, column in (label != 255).nonzero().tolist():
        p, q = (probabilities(maps[image, :, row, column], temperature)
                for maps in (teacher, student))
        terms.append(sum(a * math.log(a / b) for a, b in zip(p, q)))
    expected = 0.5 * temperature**2 * sum(terms) / len(terms)
    loss = PixelDistillationLoss(temperature, loss_weight=0.5)
    assert loss(student, teacher, label).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_of_the_divergence_is_the_difference_of_probabilities(batch):
    student, teacher, label = batch
    PixelDistillationLoss()(student, teacher, label).backward()
    counted = (label != 255).unsqueeze(1)
    expected = (student.softmax(1) - teacher.softmax(1)) * counted / counted.sum()
    torch.testing.assert_close(student.grad, expected.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('mine, theirs', [(2, 1), (1, 2), (1, 1)])
def test_one_channel_is_that_of_two_classes(mine, theirs):
    maps = {channels: torch.randn(2, channels, 4, 5) for channels in (1, 2)}
    whole = {1: torch.cat([torch.zeros_like(maps[1]), maps[1]], 1), 2: maps[2]}
    label, loss = torch.zeros(2, 4, 5, dtype=torch.long), PixelDistillationLoss()
    assert torch.equal(loss(maps[mine], maps[theirs], label),
                       loss(whole[mine], whole[theirs], label))


def test_no_pixels_give_zero(batch):
    student, teacher, label = batch
    loss = PixelDistillationLoss()(student, teacher, torch.full_like(label, 255))
    loss.backward()
    assert loss.item() == 0 and student.grad.abs().sum() == 0


def test_maps_that_do_not_fit_are_named(batch):
    student, teacher, label = batch
    for other, words in ((teacher[:, :2], '2×4×5'), (teacher[:, :, 1:], '3×3×5')):
        with pytest.raises(UserError, match=f'logits of the teacher are {words}.*student 3×4×5'):
            PixelDistillationLoss()(student, other, label)
    loss = FeatureDistillationLoss([1], [3], [3])
    with pytest.raises(UserError, match=r'in_index is \[1\].*student has 2 .* teacher 1'):
        loss([student] * 2, [teacher], label)
    with pytest.raises(UserError, match='features 1 of the teacher are 2×4×5.*student 3×4×5'):
        loss([student] * 2, [teacher[:, :2]] * 2, label)


def test_what_stands_at_ignored_pixels_is_without_effect(batch):
    student, teacher, label = batch
    before = PixelDistillationLoss()(student, teacher, label)
    for maps in (student.data, teacher):
        maps[(label == 255).unsqueeze(1).expand_as(maps)] = float('nan')
    after = PixelDistillationLoss()(student, teacher, label)
    after.backward()
    assert torch.equal(before, after) and student.grad.isfinite().all()


def test_wrong_arguments_are_named():
    with pytest.raises(UserError, match=r'in_index=\[2, 3\], student_channels=\[512\]'):
        FeatureDistillationLoss(in_index=[2, 3])
    with pytest.raises(UserError, match='temperature=0'):
        PixelDistillationLoss(temperature=0)


def maps(*channels, size=(2, 3)):
    return [torch.randn(2, c, *size) for c in channels]


def test_feature_distance_weighs_cells_by_their_counted_pixels():
    student, teacher = maps(4, 6), maps(4, 6)
    label = torch.zeros(2, 4, 6, dtype=torch.long)  # a cell is 2×2 pixels
    label[0, :2, :2] = label[1, 0, 5] = 255
    loss = FeatureDistillationLoss([1], [6], [6], loss_weight=2.)
    total = weights = 0
    for image in range(2):
        for row in range(2):
            for column in range(3):
                a, b = student[1][image, :, row, column], teacher[1][image, :, row, column]
                cell = label[image, 2 * row:2 * row + 2, 2 * column:2 * column + 2]
                weight = (cell != 255).float().mean()
                total += weight * (2 - 2 * torch.dot(a, b) / a.norm() / b.norm())
                weights += weight
    torch.testing.assert_close(loss(student, teacher, label), 2 * total / weights)


def test_unequal_channels_get_an_adapter_that_learns():
    loss = FeatureDistillationLoss([0, 1], [4, 6], [4, 10])
    assert [tuple(p.shape) for p in loss.parameters()] == [(10, 6, 1, 1), (10,)]
    loss(maps(4, 6), maps(4, 10), torch.zeros(2, 8, 12)).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())
    assert not list(FeatureDistillationLoss().parameters())
