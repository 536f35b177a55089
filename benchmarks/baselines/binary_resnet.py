"""Binary ResNet-18 in three recipes, as baselines: BNN, Bi-Real Net and ReActNet.

* ``'bnn'`` (Courbariaux et al., arXiv 1602.02830): signs of activations and weights, a shortcut
  around each pair of convolutions, and a clamp to ±1.
* ``'bireal'`` (Liu et al., arXiv 1808.00278): a shortcut around each convolution; no other
  activation than the sign.
* ``'reactnet'`` (Liu et al., arXiv 2003.03488): learned thresholds of the signs (RSign) and RPReLU
  after each shortcut.

The stem and the 1×1 convolutions of shortcuts are real-valued. Deliberate differences from the
papers: quantizers and output norms are those of BHViT, so that only the architecture differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmcv.cnn import build_norm_layer
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.common import Backbone, check_choice
from bhvit_seg.models.layers import BinaryConv2d, RPReLU


class Recipe(NamedTuple):
    """The differences between the three networks."""

    inner_shortcut: bool  # around each convolution, not only around each pair
    learned_threshold: bool  # of signs, per channel
    act: str  # behind each norm or sum


RECIPES = {
    'bnn': Recipe(inner_shortcut=False, learned_threshold=False, act='clamp'),
    'bireal': Recipe(inner_shortcut=True, learned_threshold=False, act='none'),
    'reactnet': Recipe(inner_shortcut=True, learned_threshold=True, act='rprelu'),
}


def _build_act(kind: str, channels: int, binary: bool) -> nn.Module:
    if kind == 'rprelu':
        return RPReLU(channels)
    if kind == 'clamp':
        return nn.Hardtanh()
    # The sign is the only nonlinearity of Bi-Real: its twin without it would be linear.
    return nn.Identity() if binary else nn.ReLU()


class BinaryBasicBlock(nn.Module):
    """ResNet's block with two binary 3×3 convolutions.

    With a shortcut around each: ``y = act(norm(conv(sign(x))) + s(x))``, then
    ``act(norm(conv(sign(y))) + y)``; around both: ``y = act(norm(conv(sign(x))))``, then
    ``act(norm(conv(sign(y))) + s(x))``. ``s`` is the identity, or a 2×2 mean, 1×1 convolution and
    norm where the shape changes.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, recipe: Recipe,
                 norm_cfg: dict, binary: bool) -> None:
        super().__init__()
        self.inner_shortcut = recipe.inner_shortcut
        self.conv1 = BinaryConv2d(in_channels, channels, 3, stride, 1, bias=False, binary=binary)
        self.norm1 = build_norm_layer(norm_cfg, channels)[1]
        self.act1 = _build_act(recipe.act, channels, binary)
        self.conv2 = BinaryConv2d(channels, channels, 3, 1, 1, bias=False, binary=binary)
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]
        self.act2 = _build_act(recipe.act, channels, binary)
        for conv in (self.conv1, self.conv2):
            conv.input_bias.requires_grad_(recipe.learned_threshold)
        self.shortcut = nn.Identity()
        if stride > 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(in_channels, channels, 1, bias=False),
                build_norm_layer(norm_cfg, channels)[1])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C, ⌈H/stride⌉, ⌈W/stride⌉)``."""
        shortcut = self.shortcut(x)
        y = self.norm1(self.conv1(x))
        if self.inner_shortcut:
            y = shortcut = self.act1(y + shortcut)
        else:
            y = self.act1(y)
        return self.act2(self.norm2(self.conv2(y)) + shortcut)


@MODELS.register_module()
class BinaryResNet(Backbone):
    """Binary ResNet-18 with four maps at strides 4, 8, 16 and 32.

    Args, others as of :class:`BHViT`:
        recipe: ``'reactnet'``, ``'bireal'`` or ``'bnn'``.
        depths, channels: Of each stage; by default those of ResNet-18.
        norm_cfg: ``type`` ``'BN'`` (default) or ``'SyncBN'``.
        binary: ``False`` gives the full-precision twin, with ReLU where the sign was the only
            nonlinearity.
    """

    def __init__(self, recipe: str = 'reactnet', depths: Sequence[int] = (2, 2, 2, 2),
                 channels: Sequence[int] = (64, 128, 256, 512), norm_cfg: dict | None = None,
                 binary: bool = True, in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3), init_cfg: dict | None = None) -> None:
        super().__init__(in_channels, out_indices, init_cfg)
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        check_choice('BinaryResNet', 'recipe', recipe, tuple(RECIPES))
        check_choice('BinaryResNet', 'norm_cfg type', norm_cfg.get('type'), ('BN', 'SyncBN'))
        if len(depths) != 4 or len(channels) != 4 or min(depths) < 1:
            raise UserError(f'BinaryResNet got depths={tuple(depths)}, channels='
                            f'{tuple(channels)}; each is four numbers, one for each stage.')
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels[0], 7, 2, 3, bias=False),
            build_norm_layer(norm_cfg, channels[0])[1], nn.MaxPool2d(3, 2, 1))
        widths = [channels[0], *channels]
        self.stages = nn.ModuleList(
            nn.Sequential(*(
                BinaryBasicBlock(widths[i] if b == 0 else widths[i + 1], widths[i + 1],
                                 2 if i and b == 0 else 1, RECIPES[recipe], norm_cfg, binary)
                for b in range(depth)))
            for i, depth in enumerate(depths))
        self.output_norms = nn.ModuleDict(
            {str(i): build_norm_layer(norm_cfg, channels[i])[1] for i in self.out_indices})

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Shapes as of :meth:`BHViT.forward`."""
        self.check_image(image)
        x = self.stem(image.contiguous(memory_format=torch.channels_last))
        outputs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outputs.append(self.output_norms[str(i)](x))
        return tuple(outputs)
