"""Layers of binary networks, registered for the configs of any mmseg head.

``conv_cfg=dict(type='BinaryConv2d')`` with ``act_cfg=dict(type='RPReLU')`` binarizes a head.
Binarization is simulated: bits are ±1 in floating point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from .fused import prelu
from .quantizers import AdaptiveBinarizer, binarize_activation, binarize_weight

# What thresholds and scales of binary convolutions adapt to: nothing, or see AdaptiveBinarizer.
ADAPTIVE = (None, 'image', 'running')


class BinaryLayer(nn.Module):
    """Base of layers with latent weights.

    A layer adds a learned bias to its input, takes the sign, and multiplies by binarized weights;
    with ``binary=False`` it is the full-precision layer with the same parameters.
    """

    # False while only activations are binary, in the first stage of a training.
    binarize_weights = True
    binary: bool

    def _weight(self, rectify: bool = False) -> Tensor:
        binary = self.binary and self.binarize_weights
        return binarize_weight(self.weight, rectify) if binary else self.weight

    def extra_repr(self) -> str:
        return super().extra_repr() + ('' if self.binary else ', binary=False')


def binary_layers(model: nn.Module) -> dict[str, BinaryLayer]:
    """Return the layers of ``model`` that have latent weights, by name."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, BinaryLayer) and module.binary}


def latent_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the latent weights of all binary layers of ``model``, by the name of the layer."""
    return {name: layer.weight for name, layer in binary_layers(model).items()}


def set_binary_weights(model: nn.Module, binary: bool) -> None:
    """Set whether the binary layers of ``model`` binarize their weights."""
    for layer in binary_layers(model).values():
        layer.binarize_weights = binary


def shift_and_binarize(x: Tensor, bias: Tensor, binary: bool) -> Tensor:
    """Add a bias ``(C,)`` to ``(..., C)`` and take the sign; the full-precision twin only adds."""
    return binarize_activation(x, bias) if binary else x + bias


def build_adaptive(adaptive: str | None, channels: int, binary: bool) -> AdaptiveBinarizer | None:
    """Build what :func:`binarize_map` takes, None in the full-precision twin."""
    if adaptive not in ADAPTIVE:
        raise UserError(f'adaptive is {adaptive!r}; binary convolutions take '
                        f'{" or ".join(map(repr, ADAPTIVE))}.')
    return AdaptiveBinarizer(channels, adaptive) if adaptive and binary else None


def binarize_map(maps: Tensor, bias: Tensor, binary: bool,
                 adaptive: AdaptiveBinarizer | None) -> Tensor:
    """:func:`shift_and_binarize` for a map ``(B, C, H, W)``; the result is channels-last."""
    x = maps.permute(0, 2, 3, 1)
    x = shift_and_binarize(x, bias, binary) if adaptive is None else adaptive(x, bias)
    return x.permute(0, 3, 1, 2)


@MODELS.register_module()
class BinaryConv2d(BinaryLayer, nn.Conv2d):
    """2-D convolution of binarized inputs with binarized weights; arguments of ``nn.Conv2d``.

    Zeros are padded AFTER the sign: a tap outside the map contributes 0, neither +1 nor −1.

    Args:
        input_bias: Whether the layer binarizes its input, after adding a learned bias per channel.
            ``False`` if the input is ±1 already.
        binary: ``False`` makes it a full-precision convolution.
        adaptive: Of :class:`~bhvit_seg.models.quantizers.AdaptiveBinarizer`; None: a learned bias
            alone. Without effect if ``input_bias`` or ``binary`` is ``False``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size, *args,
                 input_bias: bool = True, binary: bool = True, adaptive: str | None = None,
                 **kwargs) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        if self.padding_mode != 'zeros':
            raise ValueError(f'BinaryConv2d pads with zeros only, got padding_mode='
                             f'{self.padding_mode!r}; leave padding_mode out.')
        self.binary = binary
        self.input_bias = nn.Parameter(torch.zeros(in_channels)) if input_bias else None
        self.adaptive = build_adaptive(adaptive, in_channels, binary and input_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        return self.convolve(x, self.bias)

    def convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with another bias, for callers that fold a shift per channel into it."""
        if self.input_bias is not None:
            x = binarize_map(x, self.input_bias, self.binary, self.adaptive)
        return F.conv2d(x, self._weight(), bias, self.stride, self.padding, self.dilation,
                        self.groups)


@MODELS.register_module()
class BinaryLinear(BinaryLayer, nn.Linear):
    """Product of binarized inputs with a binarized matrix, without bias on its output; ``rectify``
    uses the gradient of ReCU, other arguments as for :class:`BinaryConv2d`."""

    def __init__(self, in_features: int, out_features: int, input_bias: bool = True,
                 rectify: bool = False, binary: bool = True) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.rectify = rectify
        self.binary = binary
        self.input_bias = nn.Parameter(torch.zeros(in_features)) if input_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        if self.input_bias is not None:
            x = shift_and_binarize(x, self.input_bias, self.binary)
        return self.multiply(x)

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product for inputs that are already binarized."""
        return F.linear(x, self._weight(self.rectify), self.bias)


@MODELS.register_module()
class RPReLU(nn.Module):
    """``prelu(x − a) + b`` with learned ``a``, ``b`` and slope per channel (ReActNet).

    Args:
        num_parameters: Number of channels, or 1 to share the values, as in ``nn.PReLU``.
        init: Initial slope.
        inplace: No effect; mmcv's ``ConvModule`` passes it.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, inplace: bool = False) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.shift_in = nn.Parameter(torch.zeros(num_parameters))
        self.slope = nn.Parameter(torch.full((num_parameters,), float(init)))
        self.shift_out = nn.Parameter(torch.zeros(num_parameters))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        shape = (-1,) + (1,) * (x.dim() - 2)
        return F.prelu(x - self.shift_in.view(shape), self.slope) + self.shift_out.view(shape)

    def extra_repr(self) -> str:
        return f'num_parameters={self.num_parameters}'


class LayerScale(nn.Module):
    """``scale · x + bias`` per channel, on rows ``(..., C)``; the initial scale is 0.1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 0.1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, x, self.scale)

    def after(self, act: RPReLU) -> tuple[Tensor, Tensor]:
        """Scale and bias ``(C,)`` equal to the output shift of ``act`` followed by this layer."""
        return self.scale, self(act.shift_out)


def build_token_norm(norm_cfg: dict, channels: int) -> nn.Module:
    """Build the norm of token rows ``(N, C)``: ``type`` ``'BN'``, ``'SyncBN'`` or ``'LN'``."""
    kinds = {'BN': nn.BatchNorm1d, 'SyncBN': nn.SyncBatchNorm, 'LN': nn.LayerNorm}
    cfg = dict(norm_cfg)
    kind, requires_grad = cfg.pop('type', None), cfg.pop('requires_grad', True)
    if kind not in kinds:
        raise ValueError(f'norm_cfg type is {kind!r}; BHViT takes one of {sorted(kinds)}.')
    return kinds[kind](channels, **cfg).requires_grad_(requires_grad)


def normalize(norm: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
    """Normalise rows ``(N, C)`` and add ``shift``, folded into the norm's own bias; the result may
    be changed in place. ``nn.Identity`` stands for what is folded into the layer before."""
    if isinstance(norm, nn.Identity):
        return x
    if isinstance(norm, nn.LayerNorm):
        bias = norm.bias if shift is None else norm.bias + shift
        return F.layer_norm(x, norm.normalized_shape, norm.weight, bias, norm.eps)
    if shift is None or isinstance(norm, nn.SyncBatchNorm) or not norm.affine:
        out = norm(x)
        return out if shift is None else out + shift
    use_batch = norm.training or not norm.track_running_stats
    if norm.training and norm.track_running_stats:
        norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:
        momentum = 1 / max(float(norm.num_batches_tracked), 1)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias + shift,
                        use_batch, momentum, norm.eps)


class BinaryProjection(nn.Module):
    """``RPReLU(norm(BinaryLinear(x)) + x)`` on rows; without ``shortcut``, ``x`` is not added."""

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict, rectify: bool = False,
                 binary: bool = True, shortcut: bool = True) -> None:
        super().__init__()
        self.linear = BinaryLinear(in_channels, channels, rectify=rectify, binary=binary)
        self.norm = build_token_norm(norm_cfg, channels)
        self.act = RPReLU(channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels)`` to ``(N, channels)``, before the RPReLU's output shift."""
        out = normalize(self.norm, self.linear(x), -self.act.shift_in)
        return prelu(out.add_(x) if self.shortcut else out, self.act.slope)
