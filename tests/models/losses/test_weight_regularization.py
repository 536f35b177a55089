"""The loss over latent weights against hand-written numbers."""

import pytest
import torch
from torch import nn

from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear, binary_layers
from bhvit_seg.models.losses import WeightRegularizationLoss


@pytest.fixture
def layers():
    layers = nn.Sequential(BinaryLinear(2, 2), nn.Linear(2, 2), BinaryConv2d(1, 1, 1),
                           BinaryConv2d(1, 1, 1, binary=False))
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[0.5, -1.5], [0., 3.]]))
        layers[2].weight.fill_(-0.25)
    return layers


def test_value_is_the_mean_of_layer_means_and_gradient_points_to_plus_minus_one(layers):
    assert list(binary_layers(layers)) == ['0', '2']  # found by their type
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = WeightRegularizationLoss(loss_weight=0.5)(layers)
    first = (0.5 + 0.5 + 1 + 2) / 4
    assert loss.item() == pytest.approx(0.5 * (first + 0.75) / 2) and loss.dtype == torch.float32
    loss.backward()
    each = 0.5 / 2 / 4
    assert layers[0].weight.grad.flatten().tolist() == pytest.approx([-each, -each, 0, each])
    assert layers[2].weight.grad.item() == pytest.approx(0.25)
    assert layers[1].weight.grad is None
