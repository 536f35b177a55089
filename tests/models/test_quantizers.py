"""Quantizers against formulas and gradients written by hand, at 0 and ±1 too."""

import math

import pytest
import torch

from bhvit_seg.models.quantizers import (
    AdaptiveBinarizer,
    AttentionQuantizer,
    BooleanAttentionQuantizer,
    binarize_activation,
    binarize_adaptively,
    binarize_weight,
    quantize_attention,
    quantize_attention_gsb,
    sign,
)


def test_sign_of_zero_is_plus_one():
    assert sign(torch.tensor([-2., -1e-30, -0., 0., 3.])).tolist() == [-1, -1, 1, 1, 1]


def test_activation_forward_and_gradient_at_the_corners():
    x = torch.tensor([[-1.5], [-1.], [-0.25], [0.], [0.5], [1.], [1.5]], requires_grad=True)
    bits = binarize_activation(x, torch.zeros(1))
    bits.backward(torch.full_like(bits, 3.))
    assert bits.flatten().tolist() == [-1, -1, -1, 1, 1, 1, 1]
    assert x.grad.flatten().tolist() == pytest.approx([0, 0, 4.5, 6, 3, 0, 0])


def test_activation_bias_shifts_threshold_and_sums_the_gradient():
    x = torch.tensor([[0.2, 0.2], [-0.6, 0.1]], requires_grad=True)
    bias = torch.tensor([0.1, -0.5], requires_grad=True)
    bits = binarize_activation(x, bias)
    grad = torch.tensor([[1., 2.], [3., 4.]])
    bits.backward(grad)
    assert bits.tolist() == [[1, -1], [-1, -1]]
    expected = grad * (2 - 2 * (x + bias).abs().detach())
    torch.testing.assert_close(x.grad, expected)
    torch.testing.assert_close(bias.grad, expected.sum(0))


def test_thresholds_and_scales_follow_each_image():
    """Two images of three pixels; ``s`` of the second channel of the first is −1, 0, 1."""
    x = torch.tensor([[[0.5, 1.], [-0.1, 2.], [0.2, 3.]], [[-2., 0.5], [-1., 0.], [0.6, 1.]]],
                     dtype=torch.float64).view(2, 1, 3, 2).requires_grad_()
    bias, mean_weight, exponent = parameters = [
        torch.tensor(values, dtype=torch.float64, requires_grad=True)
        for values in ([0.1, 1.], [0.5, 1.5], [0.3, -0.7])]
    grad = torch.arange(1., 13.).double().view_as(x)
    out = binarize_adaptively(x, *parameters)
    out.backward(grad)
    mean = torch.tensor([[0.2, 2.], [-0.8, 0.5]]).double().view(2, 1, 1, 2)
    with torch.no_grad():
        s = x + bias - mean_weight * mean
        size = s.abs().mean((1, 2), keepdim=True)
        scale = torch.exp(exponent * size)
        signs = torch.where(s >= 0, 1., -1.)
        passed = grad * scale * (2 - 2 * s.abs()).clamp(min=0)
    assert s[0, 0, :, 1].tolist() == [-1, 0, 1] and signs[0, 0, :, 1].tolist() == [-1, 1, 1]
    assert passed[0, 0, 0, 1] == passed[0, 0, 2, 1] == 0 < passed[0, 0, 1, 1]
    torch.testing.assert_close(out, scale * signs)
    torch.testing.assert_close(x.grad, passed)
    torch.testing.assert_close(bias.grad, passed.sum((0, 1, 2)))
    torch.testing.assert_close(mean_weight.grad, (passed * -mean).sum((0, 1, 2)))
    torch.testing.assert_close(exponent.grad, (grad * out * size).detach().sum((0, 1, 2)))


def test_running_statistics_are_constants_for_all_images():
    binarizer = AdaptiveBinarizer(3, 'running')
    with torch.no_grad():
        binarizer.mean_weight.copy_(torch.tensor([1., 0.5, -1.]))
        binarizer.exponent.copy_(torch.tensor([0.2, -0.1, 0.4]))
    bias = torch.tensor([0.1, 0., -0.2], requires_grad=True)
    x = torch.randn(2, 4, 5, 3) + 1
    mean = 0.1 * x.mean((0, 1, 2))  # BatchNorm's momentum, from 0 and 1
    deviation = (0.9 + 0.1 * x.flatten(0, 2).var(0)).sqrt()
    out = binarizer(x, bias)
    scale = torch.exp((binarizer.exponent * deviation).mean())
    torch.testing.assert_close(
        out, scale * sign(x + bias - binarizer.mean_weight * mean), rtol=1e-6, atol=0)
    grad = torch.randn_like(out)
    out.backward(grad)
    passed = grad * scale * (2 - 2 * (x + bias - binarizer.mean_weight * mean).abs()).clamp(min=0)
    torch.testing.assert_close(binarizer.mean_weight.grad, (passed * -mean).sum((0, 1, 2)))
    torch.testing.assert_close(binarizer.exponent.grad, (grad * out).sum() * deviation / 3)
    assert torch.equal(binarizer.eval()(x, bias), out)
    assert torch.equal(binarizer(x[:1], bias), out[:1])


def test_weight_has_two_values_and_the_gradient_goes_through_the_mean():
    weight = torch.tensor([[0.5, -0.5, 3.0], [0.1, 0.2, 0.3]], requires_grad=True)
    binary = binarize_weight(weight)
    grad = torch.tensor([[1., 2., 3.], [4., 5., 6.]])
    binary.backward(grad)
    torch.testing.assert_close(binary, torch.tensor([[-4 / 3, -4 / 3, 4 / 3], [-.2, .2, .2]]))
    # row 0 is centred to -0.5, -1.5, 2: only its first entry is within ±1
    expected = torch.tensor([[1., 0., 0.], [4., 5., 6.]])
    expected = expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(weight.grad, expected)


def test_weight_gradient_passes_at_exactly_one():
    weight = torch.tensor([[1., -1.], [1.5, -1.5]], requires_grad=True)
    binarize_weight(weight).backward(torch.tensor([[1., 0.], [1., 0.]]))
    assert weight.grad.tolist() == [[0.5, -0.5], [0, 0]]


def test_rectified_gradient_is_that_of_the_clamped_standardised_weights():
    weight = torch.randn(5, 16, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(5, 16, dtype=torch.float64)
    binary = binarize_weight(weight, rectify=True)
    binary.backward(grad)
    torch.testing.assert_close(binary, binarize_weight(weight.detach()))
    latent = weight.detach().clone().requires_grad_()
    centred = latent - latent.mean(1, keepdim=True)
    standard = centred / (torch.sqrt(centred.var(1, keepdim=True) + 1e-5) / (2 * math.sqrt(2)))
    bound = (-standard.abs().mean() * math.log(2 - 2 * 0.92)).item()
    assert (standard.abs() > bound).any() and (standard.abs() < bound).any()
    standard.clamp(-bound, bound).backward(grad)
    torch.testing.assert_close(weight.grad, latent.grad, rtol=1e-12, atol=1e-12)


def test_attention_levels_and_gradients():
    x = torch.tensor([[[[-0.3, 0.2, 0.55, 1.4, 2.]]]], requires_grad=True)
    alpha = torch.tensor([0.5], requires_grad=True)
    zero = torch.tensor([0.1], requires_grad=True)
    out = quantize_attention(x, alpha, zero, grad_scale=0.25)
    # x/α + z = -0.5, 0.5, 1.2, 2.9, 4.1, rounded half to even
    assert out.flatten().tolist() == pytest.approx([0, 0, 0.5, 1.5, 1.5])
    grad = torch.tensor([1., 2., 3., 4., 5.]).view_as(x)
    out.backward(grad)
    inside = [1, 1, 1, 1, 0]
    assert x.grad.flatten().tolist() == [g * i for g, i in zip([1., 2., 3., 4., 5.], inside)]
    levels = [0, 0, 1, 3, 3]
    by_hand = sum(g * (q - i * v / 0.5) for g, q, i, v in zip(
        [1, 2, 3, 4, 5], levels, inside, [-0.3, 0.2, 0.55, 1.4, 2.]))
    assert alpha.grad.item() == pytest.approx(0.25 * by_hand)
    assert zero.grad.item() == pytest.approx(0.25 * 0.5 * (1 + 2 + 3 + 4))


def test_first_training_step_initialises_alpha_over_all_matrices():
    quantizer = AttentionQuantizer(2)
    with torch.no_grad():
        quantizer.zero_point.fill_(0.5)
    matrices = [torch.rand(3, 2, 4, 4), torch.rand(1, 2, 2, 3)]
    quantizer.eval()(matrices)
    assert quantizer.alpha.tolist() == [1, 1] and not quantizer.initialized
    quantizer.train()(matrices)
    for head in range(2):
        values = 3 * torch.cat([m[:, head].flatten() for m in matrices])
        assert quantizer.alpha[head].item() == pytest.approx(
            2 * values.mean().item() / math.sqrt(3), rel=1e-6)
        assert quantizer.zero_point[head].item() == pytest.approx(
            0.45 + 0.1 * values.min().item(), rel=1e-6)
    before = quantizer.alpha.detach().clone()
    quantizer([m * 2 for m in matrices])
    assert torch.equal(before, quantizer.alpha)


def test_gsb_levels_and_gradients():
    a = torch.tensor([[0.02, 0.1, 0.3, 0.4]], dtype=torch.float64, requires_grad=True)
    c1, c2, c3 = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (.1, .9, 1.2))
    out = quantize_attention_gsb(a, c1, c2, c3)
    # u = 0.2, 1, 3, 4 with row maximum 4: 3 is above 0.7 of it, 4 above 0.9
    assert out.flatten().tolist() == pytest.approx([0, .1, .09, .12])
    out.backward(torch.tensor([[1., 2., 3., 4.]], dtype=torch.float64))
    assert a.grad.flatten().tolist() == pytest.approx([0, .2, .27, .48])
    # 1 - u where 0 <= u <= 1 (here u = 1), else 1
    assert c1.grad.item() == pytest.approx(2 * 1 * 0 + 3 * .9 + 4 * 1.2)
    assert (c2.grad.item(), c3.grad.item()) == pytest.approx((.3, .4))


def test_one_boolean_matrix_marks_entries_at_or_above_the_mean_of_their_row():
    matrix = torch.tensor([[0.1, 0.25, 0.4, 0.25], [0.25, 0.25, 0.25, 0.25]]).view(1, 1, 2, 4)
    quantized, = BooleanAttentionQuantizer(1)([matrix])
    assert quantized.flatten().tolist() == [0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25]


def test_gradients_of_one_boolean_matrix_at_the_corners():
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
