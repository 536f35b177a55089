"""Each baseline gives the labels of the trained network; those not installed are skipped."""

from __future__ import annotations

import pytest
import torch

from benchmarks.latency.baselines.baseline import BASELINES, Baseline, choose
from benchmarks.latency.baselines.exports import Exports
from benchmarks.latency.baselines.random_weights import randomize
from bhvit_seg.errors import UserError

# Quantizing takes ten seconds, one network is enough.
SLOW = {'segformer-b0-int8'}
EXACT = {'torch-simulated', 'torch', 'openvino', 'segformer-b0'}


@pytest.fixture
def exports(segmentor, image, tmp_path):
    model = segmentor()
    pictures = [image(64, 64, 3), image(65, 64, 3)[1:].copy()]
    randomize(model, pictures)
    return Exports(model, (64, 64), tmp_path, pictures)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in BASELINES])
def test_baseline_labels_as_the_network_does(exports, name):
    baseline = BASELINES[name]
    if baseline.missing():
        pytest.skip(baseline.missing())
    image = exports.images[0]
    labels = baseline.build(exports, 1)(image)
    truth = exports.simulated(image)
    if baseline.group == 'other':
        truth = exports.segformer()(torch.from_numpy(image)).numpy()
    assert labels.shape == (64, 64) and labels.dtype == truth.dtype
    assert (labels == truth).mean() > (0.98 if name in EXACT else 0.5)


def test_a_missing_package_names_the_extra():
    baseline = Baseline('other', 'other', 'none:none', ('no_such_package',), 'fp32')
    assert baseline.missing() == ('other is left out: no_such_package is not installed '
                              '(pip install "bhvit_seg[benchmark]")')


def test_unknown_baselines_are_refused():
    assert [baseline.name for baseline in choose(['torch'])] == ['torch']
    with pytest.raises(UserError, match="'tensorrt'.*openvino"):
        choose(['torch', 'tensorrt'])
