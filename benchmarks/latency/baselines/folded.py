"""A trained BHViT segmentor folded for one image size, in plain torch, for the baselines.

Besides the folding of weights:

* every position embedding has the size of its map;
* the six shift branches, their norm and the residual are one depthwise convolution on a torus;
* the MLP works on a chunk of rows at a time, whose hidden layer stays in cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones import BHViT
from bhvit_seg.models.backbones.bhvit import Block
from bhvit_seg.models.embeddings import Downsampling, PatchEmbedding, PositionEmbedding
from bhvit_seg.models.mlp import BinaryMLP
from bhvit_seg.models.token_mixers import MSGDC
from bhvit_seg.native.export import read_preprocessing

from .folded_attention import FoldedMSMHA
from .folding import (
    Bits,
    Product,
    Rectifier,
    add_tiled,
    affine_of,
    double,
    output_affine,
    to_map,
    to_rows,
)


def position_rows(position: PositionEmbedding, height: int, width: int) -> Tensor:
    """The embedding at a map's size, as rows ``(H · W, C)``."""
    weight = double(position.weight)
    if weight.shape[2:] != (height, width):
        weight = F.interpolate(weight, (height, width), mode='bicubic', align_corners=False)
    return to_rows(weight)


class Pixels(NamedTuple):
    """What a data preprocessor does to an RGB image.

    Attributes:
        order: Which channel of the image the model's channels are.
        mean, std: ``(C, 1, 1)``, in float64, in the order of the model's channels.
    """

    order: list[int]
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, model: EncoderDecoder) -> Pixels:
        """Read them from a segmentor.

        Raises:
            UserError: Its preprocessor does more than normalise and swap red and blue.
        """
        tensors, order = read_preprocessing(model)
        # of the image's channels; a swap is its own inverse
        mean, std = (torch.from_numpy(tensors[name][order]).view(-1, 1, 1)
                     for name in ('mean', 'std'))
        return cls(order, mean, std)


class FoldedStem(nn.Module):
    """Pre-processing, convolution, norm, GELU and position embedding.

    Normalising pixels folds into the convolution, which has no padding at sizes that 4 divides.

    Args:
        stem: The trained layer.
        pixels: What the data preprocessor does.
        height, width: Of the map, in tokens.
    """

    def __init__(self, stem: PatchEmbedding, pixels: Pixels, height: int, width: int) -> None:
        super().__init__()
        scale, bias = affine_of(stem.norm)
        weight = double(stem.projection.weight)[:, pixels.order] * scale.view(-1, 1, 1, 1)
        bias = bias + scale * double(stem.projection.bias)
        mean, std = pixels.mean[pixels.order], pixels.std[pixels.order]
        self.register_buffer('weight', weight / std)
        self.register_buffer('bias', bias - (weight * mean / std).sum((1, 2, 3)))
        self.register_buffer('position', position_rows(stem.position, height, width))
        self.stride = stem.patch_size

    def forward(self, image: Tensor) -> Tensor:
        """Map an image ``(H, W, C)`` of any type to rows."""
        pixels = image.permute(2, 0, 1).unsqueeze(0).to(self.weight.dtype)
        maps = F.conv2d(pixels, self.weight, self.bias, self.stride)
        return F.gelu(to_rows(maps)) + self.position


class FoldedDownsampling(nn.Module):
    """2×2 convolution with stride 2 and position embedding.

    Args:
        layer: The trained layer.
        height, width: Of the finer map, in tokens.
    """

    def __init__(self, layer: Downsampling, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        coarse = (height + 1) // 2, (width + 1) // 2
        scale, bias = affine_of(layer.norm_in)
        self.register_buffer('in_scale', scale)
        self.register_buffer('in_bias', bias)
        position = position_rows(layer.position, *coarse)
        self.signs = None
        if layer.act is None:
            out_scale, out_bias = affine_of(layer.norm_out)
            self.register_buffer('weight',
                                 double(layer.conv.weight) * out_scale.view(-1, 1, 1, 1))
            self.register_buffer('bias', out_bias)
        else:
            self.signs = Bits(layer.input_bias, signed=True)
            self.product = Product(layer.conv, layer.norm_out, -layer.act.shift_in)
            self.act = Rectifier(layer.act.slope)
            position = position + double(layer.act.shift_out)
        self.register_buffer('position', position)

    def _even(self, rows: Tensor) -> Tensor:
        """The map, with a row and a column of zeros where it is odd."""
        maps = to_map(rows, self.height, self.width)
        if self.height % 2 or self.width % 2:
            maps = F.pad(maps, (0, self.width % 2, 0, self.height % 2))
        return maps

    def forward(self, rows: Tensor) -> Tensor:
        normed = rows * self.in_scale + self.in_bias
        if self.signs is None:
            maps = F.conv2d(self._even(normed), self.weight, self.bias, 2)
            return to_rows(maps) + self.position
        out = to_rows(self.product(self._even(self.signs(normed))))
        pooled = to_rows(F.avg_pool2d(to_map(normed, self.height, self.width), 2, ceil_mode=True,
                                      count_include_pad=False))
        return self.act(add_tiled(out, pooled)) + self.position


class FoldedMSGDC(nn.Module):
    """Norm, bits, three dilated convolutions with their activations, norm and residual."""

    def __init__(self, norm: nn.Module, mixer: MSGDC, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        scale, bias = affine_of(norm)
        self.register_buffer('in_scale', scale)
        self.signs = Bits(bias + double(mixer.input_bias), signed=True)
        self.convs = nn.ModuleList(Product(conv, None, -act.shift_in)
                                   for conv, act in zip(mixer.convs, mixer.acts))
        self.acts = nn.ModuleList(Rectifier(act.slope) for act in mixer.acts)
        scale, bias = affine_of(mixer.norm)
        self.register_buffer('out_scale', scale)
        self.register_buffer(
            'out_bias', bias + scale * sum(double(act.shift_out) for act in mixer.acts))

    def forward(self, rows: Tensor) -> Tensor:
        bits = to_map(self.signs(rows * self.in_scale), self.height, self.width)
        total = sum(act(conv(bits)) for conv, act in zip(self.convs, self.acts))
        return rows + to_rows(total) * self.out_scale + self.out_bias


# Hidden values computed at once: 2 MiB of float32, so that they do not leave the cache.
HIDDEN_VALUES = 1 << 19


class FoldedMLP(nn.Module):
    """Norm, both binary layers, shift branches and residual, a chunk of rows at a time.

    Args:
        block: The trained block.
        height, width: Of the map, in tokens.
    """

    def __init__(self, block: Block, height: int, width: int) -> None:
        super().__init__()
        mlp: BinaryMLP = block.mlp
        self.height, self.width, self.ratio = height, width, mlp.ratio
        in_scale, in_bias = affine_of(block.norm2)
        self.channels, self.hidden = len(in_scale), len(in_scale) * mlp.ratio
        self.register_buffer('in_scale', in_scale)
        self.register_buffer('in_bias', in_bias)
        self.step = max(1, HIDDEN_VALUES // self.hidden)
        self.bits1 = Bits(mlp.fc1.input_bias)
        self.fc1 = Product(mlp.fc1, mlp.norm1, -double(mlp.act1.shift_in))
        self.act1 = Rectifier(mlp.act1.slope)
        self.bits2 = Bits(double(mlp.act1.shift_out) + double(mlp.fc2.input_bias))
        shift = double(mlp.act1.shift_out).unflatten(0, (-1, mlp.ratio)).mean(1)
        self.fc2 = Product(mlp.fc2, mlp.norm2, shift - double(mlp.act2.shift_in))
        self.act2 = Rectifier(mlp.act2.slope)
        if self.channels % self.ratio:
            raise UserError(f'a block of {self.channels} channels has {self.hidden} hidden ones: '
                            'their ratio has to divide the channels')
        self._order_vertically()
        scale, bias = output_affine(mlp.layer_scale, mlp.act2)
        branches = block.shifts
        branch_scale = (double(branches.scale) / double(branches.divisors))[:, :, None, None]
        kernel = (branch_scale * double(branches.taps)).sum(0)
        self.register_buffer('out_scale', scale)
        self.register_buffer('out_bias', bias + double(branches.bias).sum(0)
                             + in_bias * kernel.sum((1, 2)))
        kernel = kernel * in_scale.view(-1, 1, 1)
        kernel[:, 2, 2] += 1
        self.register_buffer('kernel', kernel.unsqueeze(1))

    def _order_vertically(self) -> None:
        """Put hidden channel ``p · ratio + j`` at ``j · channels + p``.

        Those that are averaged then lie a row apart; OpenVINO's mean over adjacent ones is slow.
        """
        order = torch.arange(self.hidden).view(-1, self.ratio).T.flatten()
        for module, name in ((self.fc1, 'weight'), (self.fc1, 'bias'), (self.act1, 'slope'),
                             (self.bits2, 'threshold')):
            setattr(module, name, getattr(module, name)[order])
        self.fc2.weight = self.fc2.weight[:, order]

    def _stencil(self, rows: Tensor) -> Tensor:
        """Shift branches and residual as one convolution on a torus."""
        x = rows.view(1, self.height, self.width, -1)
        x = torch.cat([x[:, -2:], x, x[:, :2]], 1)
        x = torch.cat([x[:, :, -2:], x, x[:, :, :2]], 2)
        return to_rows(F.conv2d(x.permute(0, 3, 1, 2), self.kernel, groups=rows.shape[1]))

    def _hidden(self, normed: Tensor) -> Tensor:
        """The hidden layer's values ``(N, ratio · C)``, before the output shift."""
        out, ratio = self.fc1(self.bits1(normed)), self.ratio
        part = self.channels // ratio
        tiles = normed.view(-1, part, ratio).transpose(1, 2).reshape(-1, ratio, 1, part)
        return self.act1((out.view(-1, ratio, ratio, part) + tiles).view(-1, self.hidden))

    def _mlp(self, rows: Tensor) -> Tensor:
        hidden = self._hidden(rows * self.in_scale + self.in_bias)
        pooled = hidden.view(-1, self.ratio, self.channels).mean(1)
        return self.act2(self.fc2(self.bits2(hidden)) + pooled) * self.out_scale + self.out_bias

    def forward(self, rows: Tensor) -> Tensor:
        out = [self._mlp(rows[start:start + self.step])
               for start in range(0, self.height * self.width, self.step)]
        return self._stencil(rows) + (torch.cat(out) if len(out) > 1 else out[0])


class FoldedBHViT(nn.Module):
    """The backbone, from an image ``(H, W, C)`` to rows and size of each stage's map.

    Args:
        backbone: The trained backbone.
        pixels: What the data preprocessor does.
        size: Height and width of images, multiples of 4.
    """

    def __init__(self, backbone: BHViT, pixels: Pixels, size: tuple[int, int]) -> None:
        super().__init__()
        height, width = (length // backbone.patch_embed.patch_size for length in size)
        self.stem = FoldedStem(backbone.patch_embed, pixels, height, width)
        self.stages, self.downsamplings, self.sizes = nn.ModuleList(), nn.ModuleList(), []
        for i, stage in enumerate(backbone.stages):
            if i:
                layer = FoldedDownsampling(backbone.downsamplings[i - 1], height, width)
                self.downsamplings.append(layer)
                height, width = (height + 1) // 2, (width + 1) // 2
            self.sizes.append((height, width))
            layers = []
            for block in stage:
                mixer = FoldedMSGDC if isinstance(block.token_mixer, MSGDC) else FoldedMSMHA
                layers += [mixer(block.norm1, block.token_mixer, height, width),
                           FoldedMLP(block, height, width)]
            self.stages.append(nn.Sequential(*layers))
            norms = backbone.output_norms
            scale, bias = affine_of(norms[str(i)]) if norms else (
                torch.ones(backbone.arch['channels'][i]).double(),
                torch.zeros(backbone.arch['channels'][i]).double())
            self.register_buffer(f'out_scale{i}', scale)
            self.register_buffer(f'out_bias{i}', bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        rows, outputs = self.stem(image), []
        for i, stage in enumerate(self.stages):
            if i:
                rows = self.downsamplings[i - 1](rows)
            rows = stage(rows)
            outputs.append(rows * getattr(self, f'out_scale{i}') + getattr(self, f'out_bias{i}'))
        return outputs
