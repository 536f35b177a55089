"""The schedule against the paper's description, iteration by iteration."""

from types import SimpleNamespace

import pytest
from torch import nn

from bhvit_seg.models.layers import BinaryLinear
from bhvit_seg.training.hooks import TrainingStagesHook, WeightRegularizationHook
from bhvit_seg.training.schedule import Schedule, Stage


@pytest.mark.parametrize('schedule, stages, regularized', [
    (Schedule(20, weights_begin=0.25, frozen_begin=0.8, distillation_weight=0.6,
              regularization_weight=0.3, regularization_begin=0.5),
     [Stage.REAL] * 5 + [Stage.BINARY] * 11 + [Stage.FROZEN] * 4, range(10, 16)),
    (Schedule(5), [Stage.BINARY] * 5, []),
    # fractions are rounded up
    (Schedule(7, regularization_weight=0.3, regularization_begin=0.5),
     [Stage.BINARY] * 7, range(4, 7))])
def test_stages_and_weights_of_the_terms_follow_from_the_iteration(schedule, stages, regularized):
    iterations = range(schedule.iterations)
    assert [schedule.stage(i) for i in iterations] == stages
    assert [schedule.regularization(i) for i in iterations] == [
        0.3 * (i in regularized) for i in iterations]


@pytest.mark.parametrize('binary', [True, False])
def test_hooks_share_one_schedule(binary):
    regularization = WeightRegularizationHook(0.2, 0.3)
    stages = TrainingStagesHook(0.1, 0.7)
    runner = SimpleNamespace(model=nn.Sequential(BinaryLinear(2, 2, binary=binary)),
                             hooks=[stages, regularization], max_iters=10)
    expected = Schedule(10, 0.1, 0.7, None, 0.2, 0.3) if binary else Schedule(10)
    assert stages.schedule(runner) == regularization.schedule(runner) == expected
