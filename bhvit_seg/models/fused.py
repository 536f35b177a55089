"""Element-wise steps of BHViT on token rows, with hand-written gradients.

Each eager operation on a CPU costs a new buffer and a pass over memory. These functions do a chain
of operations on rows ``(N, C)``, a block of rows at a time, so that intermediate values stay in
cache; their backward recomputes what is cheap instead of storing it. On other devices a block is
the whole tensor.
"""

from __future__ import annotations

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
    """PReLU on rows: ``x`` where it is positive, else ``slope · x``.

    Args:
        x: ``(N, C)``.
        slope: ``(C,)``.
    """
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

    With ``p = prelu(x)``: the signs of ``p + bias``, with the polynomial gradient of
    :func:`~bhvit_seg.models.quantizers.binarize_activation`, and the mean of ``p`` over each group
    of ``ratio`` adjacent channels.

    Args:
        x: ``(N, ratio · C)``.
        slope: PReLU's slope, ``(ratio · C,)``.
        bias: ``(ratio · C,)``.
        ratio: The MLP's expansion ratio.

    Returns:
        Signs ``(N, ratio · C)`` and means ``(N, C)``.
    """
    with torch.autocast(x.device.type, enabled=False):
        return _HiddenActivation.apply(x, slope.to(x.dtype), bias.to(x.dtype), ratio)


def _circular_pad(x: Tensor, border: int) -> Tensor:
    """Pad a map ``(B, C, H, W)`` circularly, however small it is; the result is channels-last."""
    batch, channels, height, width = x.shape
    padded = x.new_empty(batch, height + 2 * border, width + 2 * border, channels)
    inner = padded[:, border:border + height]
    inner[:, :, border:border + width] = x.permute(0, 2, 3, 1)
    for line in [*range(border), *range(border + width, width + 2 * border)]:
        inner[:, :, line] = inner[:, :, border + (line - border) % width]
    for line in [*range(border), *range(border + height, height + 2 * border)]:
        padded[:, line] = padded[:, border + (line - border) % height]
    return padded.permute(0, 3, 1, 2)


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
            grad_x = F.conv2d(_circular_pad(grad_out, border), kernel.flip(2, 3),
                              groups=x.shape[1])
        if ctx.needs_input_grad[1]:
            padded = _circular_pad(x, border)
            grad_kernel = torch.zeros_like(kernel)
            for i, j in _cross(border):
                tap = padded[:, :, i:i + height, j:j + width]
                grad_kernel[:, 0, i, j] = (tap * grad_out).sum((0, 2, 3))
        return grad_x, grad_kernel, grad_out.sum((0, 2, 3))


def _cross(border: int) -> list[tuple[int, int]]:
    """Positions of the middle row and column of a square kernel."""
    size = 2 * border + 1
    row = [(border, j) for j in range(size)]
    return row + [(i, border) for i in range(size) if i != border]


def circular_stencil(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution on a torus with a cross-shaped kernel.

    Args:
        x: Map ``(B, C, H, W)``.
        kernel: ``(C, 1, k, k)``, zero outside the middle row and column; only these get a
            gradient.
        bias: ``(C,)``.

    Returns:
        ``(B, C, H, W)``.
    """
    with torch.autocast(x.device.type, enabled=False):
        return _CircularStencil.apply(x, kernel.to(x.dtype), bias.to(x.dtype))


