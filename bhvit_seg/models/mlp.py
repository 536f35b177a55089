"""The shift-enhanced binary MLP (BHViT, arXiv 2503.02394): two layers, and six shift branches."""

import torch
from torch import Tensor, nn

from .fused import add_tiled_, circular_stencil, hidden_activation, prelu
from .layers import BinaryLinear, LayerScale, RPReLU, build_token_norm, normalize


class BinaryMLP(nn.Module):
    """``channels → hidden → channels`` on token rows.

    ``h = RPReLU(norm(fc1(n)) + tile(n, r))``, ``o = RPReLU(norm(fc2(h)) + pool(h))`` with ``r =
    hidden / channels``; tile concatenates ``r`` copies, pool averages ``r`` adjacent channels.
    LayerScale follows.
    """

    def __init__(self, channels: int, hidden_channels: int, norm_cfg: dict,
                 rectify: bool = False, binary: bool = True) -> None:
        super().__init__()
        self.ratio = hidden_channels // channels
        self.binary = binary
        self.fc1 = BinaryLinear(channels, hidden_channels, rectify=rectify, binary=binary)
        self.norm1 = build_token_norm(norm_cfg, hidden_channels)
        self.act1 = RPReLU(hidden_channels)
        self.fc2 = BinaryLinear(hidden_channels, channels, rectify=rectify, binary=binary)
        self.norm2 = build_token_norm(norm_cfg, channels)
        self.act2 = RPReLU(channels)
        self.layer_scale = LayerScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised rows ``(N, C)`` to rows; :meth:`output_affine` follows."""
        act1, act2 = self.act1, self.act2
        hidden = normalize(self.norm1, self.fc1(x), -act1.shift_in)
        hidden = add_tiled_(hidden, x)
        bias = act1.shift_out + self.fc2.input_bias
        if self.binary:
            product, pooled = hidden_activation(hidden, act1.slope, bias, self.ratio)
        else:
            hidden = prelu(hidden, act1.slope)
            product, pooled = hidden + bias, hidden.unflatten(1, (-1, self.ratio)).mean(2)
        # Pooling the output shift gives a constant per channel.
        pooled_shift = act1.shift_out.unflatten(0, (-1, self.ratio)).mean(1)
        out = normalize(self.norm2, self.fc2.multiply(product), pooled_shift - act2.shift_in)
        return prelu(out.add_(pooled), act2.slope)

    def output_affine(self) -> tuple[Tensor, Tensor]:
        """Return scale and bias ``(C,)`` that complete the result of :meth:`forward`."""
        return self.layer_scale.after(self.act2)


class ShiftBranches(nn.Module):
    """Six circular shifts of the map, each with its own scale and bias, summed.

    In order: vertical and horizontal mean over offsets {0, ±1}; vertical and horizontal mean over
    {0, ±1, ±2}; four quarters of the channels rolled by +s and −s along the height, +s and −s along
    the width, for s = 1 and s = 2. The sum is one depthwise convolution on a torus whose 5×5 kernel
    is a cross. ``channels`` is a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(6, channels))
        self.bias = nn.Parameter(torch.zeros(6, channels))
        # Of each branch 0 or 1 for each channel and offset; index 2 + d is offset d.
        taps = torch.zeros(6, channels, 5, 5)
        taps[0, :, 1:4, 2] = taps[1, :, 2, 1:4] = 1
        taps[2, :, :, 2] = taps[3, :, 2, :] = 1
        for branch, s in ((4, 1), (5, 2)):
            # Rolling by +s reads from offset −s.
            up, down, left, right = taps[branch].chunk(4)
            up[:, 2 - s, 2] = down[:, 2 + s, 2] = left[:, 2, 2 - s] = right[:, 2, 2 + s] = 1
        self.register_buffer('taps', taps, persistent=False)
        self.register_buffer('divisors', torch.tensor([3., 3., 5., 5., 1., 1.]).unsqueeze(1),
                             persistent=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape, with ``bias`` ``(C,)`` added."""
        scale = (self.scale / self.divisors)[:, :, None, None]
        kernel = (scale * self.taps).sum(0).unsqueeze(1)
        return circular_stencil(x, kernel, self.bias.sum(0) + bias)
