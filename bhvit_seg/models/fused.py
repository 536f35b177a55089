"""Element-wise steps of BHViT on token rows ``(N, C)``, with hand-written gradients.

On a CPU they process a block of rows at a time, so that intermediate values stay in cache; their
backward recomputes what is cheap instead of storing it. A tracer gets the plain operations.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .quantizers import polynomial_gradient_, sign

_BLOCK_ELEMENTS = 1 << 17  # 512 KiB of float32: two such buffers fit into a core's L2 cache


def _row_blocks(x: Tensor) -> Iterator[slice]:
    rows, channels = x.shape
    step = max(1, _BLOCK_ELEMENTS // channels) if x.device.type == 'cpu' else max(rows, 1)
    for start in range(0, rows, step):
        yield slice(start, start + step)


def _prelu_backward_(grad: Tensor, x: Tensor, slope: Tensor, scratch: Tensor) -> Tensor:
    """Turn ``grad`` into the gradient of PReLU's input; return that of its slope."""
    torch.clamp(x, max=0, out=scratch)
    grad_slope = scratch.mul_(grad).sum(0)
    grad.mul_(torch.gt(x, 0, out=scratch).mul_(1 - slope).add_(slope))
    return grad_slope


class _PReLU(Function):

    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        x, slope = ctx.saved_tensors
        grad = torch.empty_like(x)
        grad_slope = torch.zeros_like(slope)
        scratch = None
        for rows in _row_blocks(x):
            block = grad[rows].copy_(grad_out[rows])
            if scratch is None or scratch.shape != block.shape:
                scratch = torch.empty_like(block)
            grad_slope += _prelu_backward_(block, x[rows], slope, scratch)
        return grad, grad_slope


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """PReLU on rows ``(N, C)``: ``x`` where it is positive, else ``slope · x``."""
    if torch.jit.is_tracing():
        return F.prelu(x, slope)
    with torch.autocast(x.device.type, enabled=False):
        return _PReLU.apply(x, slope.to(x.dtype))


class _AddTiled(Function):

    @staticmethod
    def forward(ctx, x: Tensor, part: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.channels = part.shape[1]
        x.unflatten(1, (-1, ctx.channels)).add_(part.unsqueeze(1))
        return x

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, grad.unflatten(1, (-1, ctx.channels)).sum(1)


def add_tiled_(x: Tensor, part: Tensor) -> Tensor:
    """Add to ``x`` ``(N, r · C)``, in place, ``r`` copies of ``part`` ``(N, C)`` side by side."""
    if torch.jit.is_tracing():
        return (x.unflatten(1, (-1, part.shape[1])) + part.unsqueeze(1)).flatten(1)
    return _AddTiled.apply(x, part)


class _HiddenActivation(Function):

    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor, bias: Tensor, ratio: int):
        ctx.save_for_backward(x, slope, bias)
        ctx.ratio = ratio
        bits = torch.empty_like(x)
        pooled = x.new_empty(x.shape[0], x.shape[1] // ratio)
        threshold = -bias
        for rows in _row_blocks(x):
            block = F.prelu(x[rows], slope)
            torch.mean(block.unflatten(1, (-1, ratio)), 2, out=pooled[rows])
            sign(block, threshold, out=bits[rows])
        return bits, pooled

    @staticmethod
    def backward(ctx, grad_bits: Tensor, grad_pooled: Tensor):
        x, slope, bias = ctx.saved_tensors
        grad = torch.empty_like(x)
        grad_slope, grad_bias = torch.zeros_like(slope), torch.zeros_like(bias)
        grad_pooled = (grad_pooled / ctx.ratio).unsqueeze(2)
        scratch = None
        for rows in _row_blocks(x):
            block = torch.add(F.prelu(x[rows], slope), bias, out=grad[rows])
            polynomial_gradient_(block).mul_(grad_bits[rows])
            grad_bias += block.sum(0)
            block.unflatten(1, (-1, ctx.ratio)).add_(grad_pooled[rows])
            if scratch is None or scratch.shape != block.shape:
                scratch = torch.empty_like(block)
            grad_slope += _prelu_backward_(block, x[rows], slope, scratch)
        return grad, grad_slope, grad_bias, None


def hidden_activation(x: Tensor, slope: Tensor, bias: Tensor, ratio: int) -> tuple[Tensor, Tensor]:
    """The steps between the two binary products of the MLP.

    With ``p = prelu(x)``: the signs of ``p + bias`` ``(N, ratio · C)``, with the gradient of
    :func:`~bhvit_seg.models.quantizers.binarize_activation`, and the means of ``p`` over ``ratio``
    adjacent channels ``(N, C)``.
    """
    if torch.jit.is_tracing():
        x = F.prelu(x, slope)
        return sign(x, -bias), x.unflatten(1, (-1, ratio)).mean(2)
    with torch.autocast(x.device.type, enabled=False):
        return _HiddenActivation.apply(x, slope.to(x.dtype), bias.to(x.dtype), ratio)


def _circular_pad(x: Tensor, border: int) -> Tensor:
    """Pad a map ``(B, C, H, W)`` circularly, however small it is; the result is channels-last."""
    x = x.permute(0, 2, 3, 1)
    if torch.jit.is_tracing():  # runtimes copy slices faster than they gather
        x = torch.cat([x[:, -border:], x, x[:, :border]], 1)
        return torch.cat([x[:, :, -border:], x, x[:, :, :border]], 2).permute(0, 3, 1, 2)
    for dim in (1, 2):
        index = torch.arange(-border, x.shape[dim] + border, device=x.device) % x.shape[dim]
        x = x.index_select(dim, index)
    return x.permute(0, 3, 1, 2)


class _CircularStencil(Function):

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        padded = _circular_pad(x, kernel.shape[-1] // 2)
        ctx.save_for_backward(x, kernel)
        return F.conv2d(padded, kernel, bias, groups=x.shape[1])

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        x, kernel = ctx.saved_tensors
        grad_out = grad_out.contiguous(memory_format=torch.channels_last)
        height, width = x.shape[2:]
        border = kernel.shape[-1] // 2
        grad_x = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_x = F.conv2d(_circular_pad(grad_out, border), kernel.flip(2, 3), groups=x.shape[1])
        if ctx.needs_input_grad[1]:
            padded = _circular_pad(x, border)
            grad_kernel = torch.zeros_like(kernel)
            line = range(kernel.shape[-1])
            for i, j in {(border, k) for k in line} | {(k, border) for k in line}:
                tap = padded[:, :, i:i + height, j:j + width]
                grad_kernel[:, 0, i, j] = (tap * grad_out).sum((0, 2, 3))
        return grad_x, grad_kernel, grad_out.sum((0, 2, 3))


def circular_stencil(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution of a map ``(B, C, H, W)`` on a torus with a cross-shaped kernel.

    ``kernel`` ``(C, 1, k, k)`` is zero outside the middle row and column, which alone get a
    gradient.
    """
    if torch.jit.is_tracing():
        return F.conv2d(_circular_pad(x, kernel.shape[-1] // 2), kernel, bias, groups=x.shape[1])
    with torch.autocast(x.device.type, enabled=False):
        return _CircularStencil.apply(x, kernel.to(x.dtype), bias.to(x.dtype))


