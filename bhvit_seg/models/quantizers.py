"""Quantizers of BHViT: pure functions with straight-through gradients.

Every function states its forward formula and its gradient, which is not the derivative of the
forward formula but the estimator of the paper. ``sign(0) = +1`` is defined here and nowhere else:
a packed bit has no third value. Allocations and passes over memory take most of the time of a
simulated binary layer on a CPU, so these functions work in place on few buffers.
"""

from __future__ import annotations

import math

import torch
from mmengine import dist
from torch import Tensor, nn
from torch.autograd import Function


def sign(x: Tensor, threshold: Tensor | float = 0, out: Tensor | None = None) -> Tensor:
    """Return ±1 for every element: ``sign(x − threshold)`` with ``sign(0) = +1``; no gradient.

    Floating-point subtraction would not change the sign. ``out`` may be ``x``.
    """
    if torch.jit.is_tracing():
        return torch.where(x >= threshold, 1., -1.)
    out = torch.empty_like(x) if out is None else out
    return torch.ge(x.detach(), threshold, out=out).mul_(2).sub_(1)


def polynomial_gradient_(x: Tensor) -> Tensor:
    """Replace ``x`` by ``max(2 − 2|x|, 0)``, the gradient of the binarized activation."""
    return x.abs_().mul_(-2).add_(2).clamp_(min=0)


class _BinarizeActivation(Function):

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias)
        return sign(x, -bias)

    @staticmethod
    def backward(ctx, grad_bits: Tensor):
        x, bias = ctx.saved_tensors
        grad = polynomial_gradient_(x + bias).mul_(grad_bits)
        return grad, grad.sum_to_size(bias.shape) if ctx.needs_input_grad[1] else None


def binarize_activation(x: Tensor, bias: Tensor) -> Tensor:
    """Binarize activations after adding a learned bias per channel.

    Forward: ``sign(x + bias)``. Gradient with respect to ``x``: ``g · max(2 − 2|x + bias|, 0)``,
    the piecewise polynomial of Bi-Real Net; the bias gets its sum over what it is broadcast to.
    Shapes: ``x`` ``(..., C)``, ``bias`` ``(C,)`` or ``(B, 1, 1, C)``; the result is ±1 like ``x``.
    """
    if torch.jit.is_tracing():
        return sign(x, -bias)
    return _BinarizeActivation.apply(x, bias)


def binarize_adaptively(x: Tensor, bias: Tensor, mean_weight: Tensor, exponent: Tensor) -> Tensor:
    """Binarize maps with thresholds and scales that follow each image (BiDense, arXiv 2411.10346).

    Forward, with the means of an image over its positions, channel by channel, and ``s = x + bias −
    mean_weight · mean(x)``: ``exp(exponent · mean|s|) · sign(s)``. Gradient: means are constants,
    so that ``x`` and ``bias`` get ``g · exp(…) · max(2 − 2|s|, 0)``, ``mean_weight`` that times
    ``−mean(x)``, and ``exponent`` the result times ``g · mean|s|``, summed as they are broadcast.
    Shapes: ``x`` ``(B, H, W, C)``, all others ``(C,)``.
    """
    values = x.detach()
    shift = bias - mean_weight * values.mean((1, 2), keepdim=True)
    size = (values + shift.detach()).abs().mean((1, 2), keepdim=True)
    return binarize_activation(x, shift) * (exponent * size).exp()


class _BinarizeWeight(Function):

    @staticmethod
    def forward(ctx, weight: Tensor, rectify: bool) -> Tensor:
        flat = weight.flatten(1)
        scale = torch.linalg.vector_norm(flat, 1, 1, keepdim=True) / flat.shape[1]
        ctx.rectify = rectify
        ctx.save_for_backward(weight)
        return sign(flat, flat.mean(1, keepdim=True)).mul_(scale).view_as(weight)

    @staticmethod
    def backward(ctx, grad_binary: Tensor):
        weight, = ctx.saved_tensors
        flat, grad = weight.flatten(1), grad_binary.flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        if ctx.rectify:
            grad = _rectified_gradient(centred, grad)
        else:
            grad = grad * centred.abs_().le_(1)
        return (grad - grad.mean(1, keepdim=True)).view_as(weight), None


def _rectified_gradient(centred: Tensor, grad: Tensor) -> Tensor:
    """Gradient of ``clamp(centred / deviation, −τ, τ)``, the deviation depending on the weights."""
    inputs = centred.shape[1]
    variance = centred.var(1, keepdim=True)
    deviation = (variance + 1e-5).sqrt() / (2 * math.sqrt(2))
    standardised = centred / deviation
    bound = -standardised.abs().mean() * math.log(2 - 2 * 0.92)
    inside = grad * (standardised.abs() <= bound)
    # d(deviation)/d(centred_j) = deviation / (variance + 1e-5) · centred_j / (inputs − 1)
    through_deviation = (inside * standardised).sum(1, keepdim=True) / (
        (variance + 1e-5) * (inputs - 1))
    return inside / deviation - through_deviation * centred


def binarize_weight(weight: Tensor, rectify: bool = False) -> Tensor:
    """Binarize latent weights, one scaling factor for each output channel.

    Forward: ``mean|W| · sign(W − mean W)``, both means over all input dimensions of an output
    channel. Gradient: that of ``clamp(W − mean W, −1, 1)``, so it flows through the mean but not
    through the scaling factor. With ``rectify`` (ReCU) the gradient is that of
    ``clamp(V, −τ, τ)`` with ``V = (W − mean W) · 2√2 / sqrt(var + 1e-5)`` and the constant
    ``τ = −mean|V| · ln(2 − 2·0.92)`` over the whole matrix; the forward value is the same, since
    dividing by a positive number changes no sign. ``weight`` is ``(out, ...)``.
    """
    return _BinarizeWeight.apply(weight, rectify)


class _QuantizeAttention(Function):

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, zero_point: Tensor, grad_scale: float) -> Tensor:
        alpha, zero_point = alpha.view(-1, 1, 1), zero_point.view(-1, 1, 1)
        rounded = (x / alpha).add_(zero_point).round_()
        ctx.grad_scale = grad_scale
        ctx.save_for_backward(x, alpha, rounded)
        return rounded.clamp(0, 3).mul_(alpha)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, alpha, rounded = ctx.saved_tensors
        inside = (rounded >= 0) & (rounded <= 3)
        grad_x = grad * inside
        other = [d for d in range(grad.dim()) if d != grad.dim() - 3]
        grad_alpha = (grad * rounded.clamp(0, 3)).sum(other)
        grad_alpha -= (grad_x * x).sum(other) / alpha.flatten()
        grad_zero = grad_x.sum(other) * alpha.flatten()
        return grad_x, grad_alpha * ctx.grad_scale, grad_zero * ctx.grad_scale, None


def quantize_attention(x: Tensor, alpha: Tensor, zero_point: Tensor, grad_scale: float) -> Tensor:
    """Quantization decomposition (QD) of an attention matrix in its learned form.

    Forward: ``clamp(round(x/α + z), 0, 3) · α`` with one α and one z for each head, which is a
    sum of three boolean matrices times a scalar. Gradient: straight through the rounding; that
    of α and z is multiplied by ``grad_scale``, ``heads / sqrt(3 · elements)``.

    Args:
        x: Three times the softmax, ``(..., heads, queries, keys)``.
        alpha, zero_point: ``(heads,)``.
    """
    if torch.jit.is_tracing():
        alpha, zero_point = alpha.view(-1, 1, 1), zero_point.view(-1, 1, 1)
        return (x / alpha + zero_point).round().clamp(0, 3) * alpha
    return _QuantizeAttention.apply(x, alpha, zero_point, grad_scale)


class _GroupSuperposition(Function):

    @staticmethod
    def forward(ctx, probabilities: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> Tensor:
        c1, c2, c3 = (c.clamp(min=1e-5) for c in (c1, c2, c3))
        u = probabilities / c1
        top = u.amax(-1, keepdim=True)
        high = (u > 0.9 * top).to(u.dtype)
        middle = (u > 0.7 * top).to(u.dtype)
        low = u.round().clamp_(0, 1).sub_(middle)
        middle = middle - high
        ctx.save_for_backward(u, low, middle, high, c1, c2, c3)
        return (low + c2 * middle + c3 * high).mul_(c1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        u, low, middle, high, c1, c2, c3 = ctx.saved_tensors
        levels = low + c2 * middle + c3 * high
        slope = 1 - u * ((u >= 0) & (u <= 1))
        return (grad * levels * c1, (grad * levels * slope).sum(), (grad * middle).sum() * c1,
                (grad * high).sum() * c1)


def quantize_attention_gsb(probabilities: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> Tensor:
    """Group superposition binarization (GSB) of an attention matrix, the older ablation.

    Forward, with ``u = A / c1`` and ``m`` the maximum of a row of ``u``: the sum of
    ``c1 · (clamp(round(u), 0, 1) − [u > 0.7 m])``, ``c1 c2 · [0.7 m < u ≤ 0.9 m]`` and
    ``c1 c3 · [u > 0.9 m]``. Gradient, as released: ``g · (levels · c1)`` for ``A``, the derivative
    of the formula for ``c2`` and ``c3``, and for ``c1`` the levels times ``1 − u`` where
    ``0 ≤ u ≤ 1``, else times 1. Values of the scalars under 1e-5 count as 1e-5.
    """
    return _GroupSuperposition.apply(probabilities, c1, c2, c3)


class AttentionQuantizer(nn.Module):
    """Learned QD of all attention matrices of a block, one step size and zero point per head.

    In the first training step α becomes ``2 · mean|x| / √3`` and z becomes
    ``0.9 z + 0.1 min(x)``, per head and the same on all ranks of a distributed run.
    """

    # Boolean matrices whose sum a quantized matrix is; each is multiplied with the values.
    boolean_matrices = 3

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.alpha = nn.Parameter(torch.ones(num_heads))
        self.zero_point = nn.Parameter(torch.zeros(num_heads))
        self.register_buffer('initialized', torch.zeros(1))
        self._ready = False  # whether `initialized` is known to be set

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self._ready = False
        super()._load_from_state_dict(*args, **kwargs)

    @torch.no_grad()
    def _initialize(self, matrices: list[Tensor]) -> None:
        heads = [m.transpose(0, -3).flatten(1) for m in matrices]
        total = torch.stack([h.abs().sum(1) for h in heads]).sum(0)
        count = total.new_tensor(sum(h.shape[1] for h in heads))
        lowest = torch.stack([h.amin(1) for h in heads]).amin(0)
        if dist.is_distributed():
            dist.all_reduce(total)
            dist.all_reduce(count)
            lowest = torch.stack(dist.all_gather(lowest)).amin(0)
        self.alpha.copy_(2 * total / count / math.sqrt(3))
        self.zero_point.copy_(0.9 * self.zero_point + 0.1 * lowest)
        self.initialized.fill_(1)

    def forward(self, matrices: list[Tensor]) -> list[Tensor]:
        """Quantize softmax matrices ``(sets, heads, queries, keys)``."""
        matrices = [3 * m for m in matrices]
        # Reading the buffer in every step would wait for the GPU each time.
        if self.training and not self._ready:
            if not self.initialized:
                self._initialize(matrices)
            self._ready = True
        elements = sum(m.numel() for m in matrices)
        grad_scale = self.num_heads / math.sqrt(3 * elements)
        return [quantize_attention(m, self.alpha, self.zero_point, grad_scale) for m in matrices]


class GroupSuperpositionQuantizer(nn.Module):
    """GSB with its three learned scalars, which all heads share."""

    boolean_matrices = 3

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.c1 = nn.Parameter(torch.tensor(0.005))
        self.c2 = nn.Parameter(torch.tensor(1.0))
        self.c3 = nn.Parameter(torch.tensor(1.0))

    def forward(self, matrices: list[Tensor]) -> list[Tensor]:
        """Quantize softmax matrices ``(sets, heads, queries, keys)``."""
        return [quantize_attention_gsb(m, self.c1, self.c2, self.c3) for m in matrices]


class BooleanAttentionQuantizer(nn.Module):
    """RSign (ReActNet) of attention matrices: 1 where an entry passes a threshold, else 0.

    With ``u = keys · A``, whose rows have the mean 1 whatever their number of keys, the result is
    ``scale / keys · (sign(u + bias) + 1) / 2``. Gradient: that of
    :func:`binarize_activation`, so ``scale · max(1 − |u + bias|, 0)`` for an entry of ``A``. Each
    head has a bias and a scale; the initial bias of −1 makes the mean of a row the threshold.
    """

    boolean_matrices = 1

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((num_heads,), -1.))
        self.scale = nn.Parameter(torch.ones(num_heads))

    def forward(self, matrices: list[Tensor]) -> list[Tensor]:
        """Quantize softmax matrices ``(sets, heads, queries, keys)``."""
        return [self._quantize(m) for m in matrices]

    def _quantize(self, matrix: Tensor) -> Tensor:
        keys = matrix.shape[-1]
        heads_last = (keys * matrix).transpose(1, 3)
        bits = binarize_activation(heads_last, self.bias.to(matrix.dtype)).transpose(1, 3)
        return (bits + 1) * (self.scale / (2 * keys)).view(-1, 1, 1)


class AdaptiveBinarizer(nn.Module):
    """Thresholds and scales of binarized maps that follow the distribution of the values.

    The distribution-adaptive binarizer of BiDense, as its code computes it (`binary/bidense.py` of
    https://github.com/frickyinn/BiDense; the paper has ``mean|s| − 1`` in the exponent). Deliberate
    difference: ``mean_weight`` and ``exponent`` begin at 0, where the layer is an ordinary one.

    Args:
        channels: Of the maps.
        adaptive: ``'image'``: :func:`binarize_adaptively`. ``'running'``, ours: constants per
            channel that can be packed. The mean is that of BatchNorm's running statistics, in
            training too; its deviation stands for ``mean|s|``, and the convolution has one scale,
            the geometric mean of those of its inputs.
    """

    def __init__(self, channels: int, adaptive: str) -> None:
        super().__init__()
        self.mean_weight = nn.Parameter(torch.zeros(channels))
        self.exponent = nn.Parameter(torch.zeros(channels))
        self.statistics = None
        if adaptive == 'running':
            self.statistics = nn.BatchNorm1d(channels, affine=False)

    def constants(self, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shift ``(C,)`` and the scale ``()`` of ``adaptive='running'``."""
        mean, variance = self.statistics.running_mean, self.statistics.running_var
        return bias - self.mean_weight * mean, (self.exponent * variance.sqrt()).mean().exp()

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Binarize a map ``(B, H, W, C)``, with the learned bias ``(C,)`` of its layer."""
        if self.statistics is None:
            return binarize_adaptively(x, bias, self.mean_weight, self.exponent)
        if self.statistics.training:
            self.statistics(x.detach().reshape(-1, x.shape[-1]))
        shift, scale = self.constants(bias)
        return binarize_activation(x, shift) * scale


# By the value of `attention` in a config.
ATTENTION_QUANTIZERS = {'qd': AttentionQuantizer, 'gsb': GroupSuperpositionQuantizer,
                        'boolean': BooleanAttentionQuantizer}
