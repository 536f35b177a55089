"""Each baseline gives the labels of the trained network; those not installed are skipped."""

import pytest
import torch
from mmengine.config import ConfigDict
from native.segmentors import balance_classes, build_segmentor, picture

from benchmarks.latency.baselines.baseline import BASELINES
from benchmarks.latency.baselines.exports import Exports
from benchmarks.latency.baselines.network import WholeNetwork
from benchmarks.latency.baselines.random_weights import randomize
from bhvit_seg.errors import UserError


@pytest.fixture
def model():
    model = build_segmentor()
    balance_classes(model)
    model.test_cfg = ConfigDict(model.test_cfg)  # as a runner builds it
    return model.requires_grad_(False)


@pytest.fixture
def exports(model, tmp_path):
    pictures = [picture((64, 64), seed=seed) for seed in range(2)]
    randomize(model, pictures)
    return Exports(model, (64, 64), tmp_path, pictures)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.slow] * ('int8' in name)) for name in BASELINES])
def test_baseline_labels_as_the_network_does(exports, name):
    baseline = BASELINES[name]
    if baseline.missing():
        pytest.skip(baseline.missing())
    image = exports.images[0]
    labels = baseline.build(exports, 1)(image)
    truth = exports.simulated(image)
    if baseline.group == 'other':
        truth = exports.other(baseline.network)(torch.from_numpy(image)).numpy()
    assert labels.shape == (64, 64) and labels.dtype == truth.dtype
    assert (labels == truth).mean() > (0.5 if 'int8' in name else 0.98)


def test_sizes_that_are_not_exported_are_refused(model):
    with pytest.raises(UserError, match='64×66'):
        WholeNetwork.folded(model, (64, 66))
