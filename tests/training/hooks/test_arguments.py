"""Wrong arguments of hooks are named with their value."""

import pytest

from bhvit_seg.errors import UserError
from bhvit_seg.training.hooks import (
    BatchNormReestimationHook,
    OscillationFreezingHook,
    TrainingStagesHook,
    WeightRegularizationHook,
    WeightStatisticsHook,
)


@pytest.mark.parametrize('hook, arguments', [
    (BatchNormReestimationHook, dict(num_batches=1.5)),
    (OscillationFreezingHook, dict(threshold=(0.1,))), (OscillationFreezingHook, dict(begin=-0.5)),
    (OscillationFreezingHook, dict(window=128)),
    (TrainingStagesHook, dict(weights_begin=0.9, rest_begin=0.4)),
    (TrainingStagesHook, dict(weight_decay=[0.1, -1.])),
    (WeightRegularizationHook, dict(weight=-0.1)), (WeightRegularizationHook, dict(begin=1.5)),
    (WeightStatisticsHook, dict(interval=0)), (WeightStatisticsHook, dict(near_zero=0.0))])
def test_wrong_arguments_are_named(hook, arguments):
    with pytest.raises(UserError) as error:
        hook(**arguments)
    for name, value in arguments.items():
        assert name in str(error.value) and str(value) in str(error.value)
