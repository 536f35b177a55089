"""Wrong arguments of hooks are named with their value."""

import pytest

from benchmarks.hooks import (
    BatchNormReestimationHook,
    OscillationFreezingHook,
    WeightStatisticsHook,
)
from bhvit_seg.errors import UserError
from bhvit_seg.training.hooks import (
    TrainingStagesHook,
    WeightRegularizationHook,
)


@pytest.mark.parametrize('hook, arguments', [
    *((BatchNormReestimationHook, dict(num_batches=value)) for value in (0, 1.5)),
    *((OscillationFreezingHook, arguments) for arguments in (
        dict(threshold=(0.1,)), dict(threshold=(0.1, 1.5)), dict(begin=-0.5), dict(window=1),
        dict(window=128))),
    *((TrainingStagesHook, arguments) for arguments in (
        dict(weights_begin=0.9, rest_begin=0.4), dict(rest_begin=1.1), dict(weight_decay=[0.1]),
        dict(weight_decay=[0.1, -1.]))),
    *((WeightRegularizationHook, arguments) for arguments in (
        dict(weight=-0.1), dict(begin=1.5), dict(begin=-0.1))),
    *((WeightStatisticsHook, arguments) for arguments in (
        dict(interval=0), dict(figure_interval=-1), dict(near_zero=0.0)))])
def test_wrong_arguments_are_named(hook, arguments):
    with pytest.raises(UserError) as error:
        hook(**arguments)
    for name, value in arguments.items():
        assert name in str(error.value) and str(value) in str(error.value)
