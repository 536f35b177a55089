"""One boolean matrix in the place of a softmax: forward and gradients by hand."""

from __future__ import annotations

import pytest
import torch

from bhvit_seg.models.attention import BooleanAttentionQuantizer, attend


def test_entries_at_or_above_the_mean_of_their_row_are_one():
    matrix = torch.tensor([[0.1, 0.25, 0.4, 0.25], [0.25, 0.25, 0.25, 0.25]]).view(1, 1, 2, 4)
    quantized, = BooleanAttentionQuantizer(1)([matrix])
    assert quantized.flatten().tolist() == [0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25]


def test_gradients_at_the_corners():
    """``scale/keys · (sign(u + bias) + 1)/2`` with ``u = keys · A``: the gradient of an entry is
    ``scale · max(1 − |u + bias|, 0)``, that of bias and scale per head are sums."""
    quantizer = BooleanAttentionQuantizer(2)
    with torch.no_grad():
        quantizer.bias.copy_(torch.tensor([-1., -0.5]))
        quantizer.scale.copy_(torch.tensor([1., 3.]))
    matrix = torch.tensor([[0., 0.25, 0.75, 1.], [0., 0.25, 0.75, 0.]])
    matrix = matrix.view(1, 2, 1, 4).requires_grad_()
    quantized, = quantizer([matrix])
    grad = torch.tensor([[1., 2., 3., 4.], [5., 6., 7., 8.]]).view(1, 2, 1, 4)
    quantized.backward(grad)
    # u + bias: (−1, 0, 2, 3) and (−0.5, 0.5, 2.5, −0.5)
    assert quantized.flatten().tolist() == [0, .25, .25, .25, 0, .75, .75, 0]
    assert matrix.grad.flatten().tolist() == pytest.approx([0, 2, 0, 0, 7.5, 9, 0, 12])
    assert quantizer.bias.grad.tolist() == pytest.approx([2 / 4, (7.5 + 9 + 12) / 4])
    assert quantizer.scale.grad.tolist() == pytest.approx([9 / 4, 13 / 4])


def test_twice_the_keys_need_no_other_threshold():
    scores = torch.randn(1, 2, 3, 5)
    once, twice = (BooleanAttentionQuantizer(2)([s.softmax(-1)])[0]
                   for s in (scores, torch.cat([scores, scores], 3)))
    torch.testing.assert_close(twice, torch.cat([once, once], 3) / 2)


def test_sets_of_different_sizes_do_not_mix():
    rows = [torch.randn(2 * 3 + 4, 8) for _ in range(3)]
    whole = attend(*rows, [(2, 3), (1, 4)], 2)
    for part, size in ((slice(0, 3), 3), (slice(3, 6), 3), (slice(6, 10), 4)):
        alone = attend(*(r[part] for r in rows), [(1, size)], 2)
        torch.testing.assert_close(whole[part], alone)


def test_attention_is_that_of_torch():
    q, k, v = (torch.randn(6, 8) for _ in range(3))
    heads = [t.view(1, 6, 2, 4).transpose(1, 2) for t in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads)
    torch.testing.assert_close(attend(q, k, v, [(1, 6)], 2),
                               expected.transpose(1, 2).reshape(6, 8))
