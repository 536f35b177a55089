"""The schedule against the paper's description, iteration by iteration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import BinaryLinear
from bhvit_seg.training.hooks import TrainingStagesHook, WeightRegularizationHook
from bhvit_seg.training.schedule import Schedule, Stage


def test_stages_and_weights_of_the_terms_follow_from_the_iteration():
    schedule = Schedule(20, weights_begin=0.25, frozen_begin=0.8, distillation_weight=0.6,
                        regularization_weight=0.3, regularization_begin=0.5)
    states = [schedule.at(iteration) for iteration in range(20)]
    assert [state.stage for state in states] == (
        [Stage.REAL] * 5 + [Stage.BINARY] * 11 + [Stage.FROZEN] * 4)
    assert [state.binary_weights for state in states] == [False] * 5 + [True] * 15
    assert [state.frozen for state in states] == [False] * 16 + [True] * 4
    assert {state.distillation_weight for state in states} == {0.6}
    assert [state.regularization_weight for state in states] == [0] * 10 + [0.3] * 6 + [0] * 4


@pytest.mark.parametrize('length, begin, first', [(10, 0.35, 4), (7, 0.5, 4), (3000, 0.9, 2700)])
def test_fractions_are_rounded_up(length, begin, first):
    schedule = Schedule(length, regularization_weight=0.1, regularization_begin=begin)
    used = [bool(schedule.at(i).regularization_weight) for i in range(length)]
    assert used.index(True) == first and all(used[first:])


def test_without_hooks_weights_are_binary_throughout():
    schedule = Schedule(5)
    assert {schedule.at(i).stage for i in range(5)} == {Stage.BINARY}


def test_terms_leave_a_share_for_the_labels():
    both = dict(distillation_weight=0.8, regularization_weight=0.3)
    with pytest.raises(UserError, match=r'\(0.8\).*\(0.3\)'):
        Schedule(10, regularization_begin=0.5, **both)
    Schedule(10, regularization_begin=0.5, frozen_begin=0.5, **both)  # never both at once
    Schedule(10, regularization_begin=0.5, regularization_weight=3.0)  # no teacher


@pytest.mark.parametrize('binary', [True, False])
def test_hooks_share_one_schedule(binary):
    regularization = WeightRegularizationHook(0.2, 0.3)
    stages = TrainingStagesHook(0.1, 0.7)
    runner = SimpleNamespace(model=nn.Sequential(BinaryLinear(2, 2, binary=binary)),
                             hooks=[stages, regularization], max_iters=10)
    expected = Schedule(10, 0.1, 0.7, None, 0.2, 0.3) if binary else Schedule(10)
    assert stages.schedule(runner) == regularization.schedule(runner) == expected
