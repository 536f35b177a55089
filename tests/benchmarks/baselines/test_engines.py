"""Each peer labels what the trained network labels; those not installed are skipped."""

from __future__ import annotations

import pytest
import torch

from benchmarks.latency.baselines.contestants import PEERS, Contestant, choose
from benchmarks.latency.baselines.exports import Exports
from benchmarks.latency.baselines.random_weights import randomize
from bhvit_seg.errors import UserError

# Compiling and quantizing take ten seconds each, one network of each is enough.
SLOW = {'torch-compile', 'openvino-int8-bf16', 'segformer-b0-int8'}
EXACT = {'torch-simulated', 'torch', 'torch-compile', 'onnxruntime', 'openvino', 'segformer-b0'}


@pytest.fixture
def exports(segmentor, image, tmp_path):
    model = segmentor()
    pictures = [image(64, 64, 3), image(65, 64, 3)[1:].copy()]
    randomize(model, pictures)
    return Exports(model, (64, 64), tmp_path, pictures)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PEERS])
def test_peer_labels_as_the_network_does(exports, name):
    peer = PEERS[name]
    if peer.missing():
        pytest.skip(peer.missing())
    image = exports.images[0]
    labels = peer.build(exports, 1)(image)
    truth = exports.simulated(image)
    if peer.group == 'other':
        truth = exports.segformer()(torch.from_numpy(image)).numpy()
    assert labels.shape == (64, 64) and labels.dtype == truth.dtype
    assert (labels == truth).mean() > (0.98 if name in EXACT else 0.5)


def test_a_missing_package_names_the_extra():
    peer = Contestant('other', 'other', 'none:none', ('no_such_package',), 'fp32')
    assert peer.missing() == ('other is left out: no_such_package is not installed '
                              '(pip install "bhvit_seg[benchmark]")')


def test_unknown_peers_are_refused():
    assert [peer.name for peer in choose(['torch'])] == ['torch']
    with pytest.raises(UserError, match="'tensorrt'.*openvino"):
        choose(['torch', 'tensorrt'])
