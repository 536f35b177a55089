"""Hand-written chains against the same chain in eager autograd."""

import pytest
import torch
import torch.nn.functional as F

from bhvit_seg.models import fused
from bhvit_seg.models.quantizers import binarize_activation


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(fused, '_BLOCK_ELEMENTS', 48)


def check(function, plain, *inputs):
    """Compare outputs and all gradients of two functions of the same inputs, in float64."""
    results = []
    for f in (function, plain):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        outputs = f(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.manual_seed(1)
        torch.autograd.backward(outputs, [double(*o.shape) for o in outputs])
        results.append(([o.detach() for o in outputs], [x.grad for x in leaves]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize('rows', [1, 7, 50])
def test_prelu(rows):
    x = double(rows, 8)
    x[0, :2] = 0
    check(fused.prelu, lambda x, s: F.prelu(x, s), x, double(8))


@pytest.mark.parametrize('rows,ratio', [(1, 2), (13, 4), (40, 1)])
def test_hidden_activation(rows, ratio):

    def plain(x, slope, bias):
        h = F.prelu(x, slope)
        return binarize_activation(h, bias), h.unflatten(1, (-1, ratio)).mean(2)

    check(lambda x, s, b: fused.hidden_activation(x, s, b, ratio), plain,
          double(rows, 4 * ratio), double(4 * ratio), double(4 * ratio))


def test_add_tiled():
    check(lambda x, p: fused.add_tiled_(x * 1, p), lambda x, p: x + torch.cat([p] * 3, 1),
          double(5, 12), double(5, 4))


@pytest.mark.parametrize('height,width', [(1, 1), (1, 5), (2, 1), (3, 2), (7, 9)])
def test_circular_stencil_is_a_sum_of_rolls(height, width):
    taps = [(0, d) for d in range(-2, 3)] + [(d, 0) for d in (-2, -1, 1, 2)]
    mask = torch.zeros(5, 5, dtype=torch.float64)
    for dy, dx in taps:
        mask[2 + dy, 2 + dx] = 1

    def plain(x, kernel, bias):
        out = bias.view(-1, 1, 1)
        for dy, dx in taps:
            weight = kernel[:, 0, 2 + dy, 2 + dx].view(-1, 1, 1)
            out = out + weight * x.roll((-dy, -dx), (2, 3))
        return out

    check(fused.circular_stencil, plain, double(2, 3, height, width), double(3, 1, 5, 5) * mask,
          double(3))
