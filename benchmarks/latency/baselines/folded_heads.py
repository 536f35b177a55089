"""The binary decode heads folded for one size, and the whole segmentor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones import BHViT
from bhvit_seg.models.decode_heads import BinaryConvModule, BinarySegformerHead, BinaryUPerHead

from .folded import FoldedBHViT, Pixels
from .folding import Bits, Product, Rectifier, add_tiled, double, to_map, to_rows
from .labels import Labels

Size = tuple[int, int]
# The last stage's map then has a side of 2 or more, from which the stencil wraps around.
SMALLEST = 36


def pooled_channels(rows: Tensor, ratio: int) -> Tensor:
    """Mean of ``ratio`` adjacent channels of rows ``(N, C)``."""
    return rows.unflatten(1, (-1, ratio)).mean(2) if ratio > 1 else rows


class FoldedConvModule(nn.Module):
    """``RPReLU(norm(product) + shortcut)`` on rows.

    Args:
        module: The trained module.
    """

    def __init__(self, module: BinaryConvModule) -> None:
        super().__init__()
        self.ratio = module.ratio
        self.product = Product(module.conv, module.norm, -double(module.act.shift_in))
        self.bits = Bits(module.conv.input_bias, signed=self.product.convolution is not None)
        self.act = Rectifier(module.act.slope)
        self.register_buffer('shift', double(module.act.shift_out))

    def forward(self, rows: Tensor, size: Size) -> Tensor:
        """Map rows of a map of ``size`` to rows."""
        bits = self.bits(rows)
        if self.product.convolution is None:
            out = self.product(bits)
        else:
            out = to_rows(self.product(to_map(bits, *size)))
        return self.finish(out, pooled_channels(rows, self.ratio))

    def finish(self, out: Tensor, shortcut: Tensor) -> Tensor:
        """What follows the product."""
        return self.act(add_tiled(out, shortcut)) + self.shift


class _FoldedHead(nn.Module):
    """What both heads have in common: upsampling of rows."""

    def __init__(self, head: nn.Module, sizes: list[Size]) -> None:
        super().__init__()
        self.align_corners = head.align_corners
        self.sizes = sizes

    def upsample(self, rows: Tensor, size: Size, target: Size) -> Tensor:
        """Resize rows of a map of ``size`` bilinearly to rows of a map of size ``target``."""
        if size == target:
            return rows
        return to_rows(F.interpolate(to_map(rows, *size), target, mode='bilinear',
                                     align_corners=self.align_corners))


class FoldedSegformerHead(_FoldedHead):
    """SegFormer's head.

    The fusion is a sum of products, one for each map, so that nothing is concatenated at full
    width. The mean over adjacent channels commutes with upsampling, so its shortcut is pooled where
    maps are small.
    """

    def __init__(self, head: BinarySegformerHead, sizes: list[Size]) -> None:
        super().__init__(head, sizes)
        self.convs = nn.ModuleList(FoldedConvModule(conv) for conv in head.convs)
        self.fusion = FoldedConvModule(head.fusion_conv)

    def forward(self, features: list[Tensor]) -> Tensor:
        target, fusion = self.sizes[0], self.fusion
        out, shortcuts = fusion.product.bias, []
        maps = [conv(rows, size) for conv, rows, size in zip(self.convs, features, self.sizes)]
        weights = fusion.product.weight.chunk(len(maps), 1)
        thresholds = fusion.bits.threshold.chunk(len(maps))
        for rows, size, weight, threshold in zip(maps, self.sizes, weights, thresholds):
            wide = self.upsample(rows, size, target)
            out = out + F.linear((wide >= threshold).to(wide.dtype), weight)
            shortcuts.append(self.upsample(pooled_channels(rows, fusion.ratio), size, target))
        return fusion.finish(out, torch.cat(shortcuts, 1))


class FoldedUPerHead(_FoldedHead):
    """UPerNet's head; its pyramid pooling is a product with a constant matrix."""

    def __init__(self, head: BinaryUPerHead, sizes: list[Size]) -> None:
        super().__init__(head, sizes)
        self.scales = [module[0].output_size for module in head.psp_modules]
        self.pyramid = nn.ModuleList(FoldedConvModule(module[1])
                                     for module in head.psp_modules)
        height, width = sizes[-1]
        unit = torch.eye(height * width, dtype=torch.float64).view(1, -1, height, width)
        for i, scale in enumerate(self.scales):
            self.register_buffer(f'pool{i}', F.adaptive_avg_pool2d(unit, scale)[0].flatten(1).T)
        self.bottleneck = FoldedConvModule(head.bottleneck)
        self.laterals = nn.ModuleList(FoldedConvModule(conv) for conv in head.lateral_convs)
        self.fpn = nn.ModuleList(FoldedConvModule(conv) for conv in head.fpn_convs)
        self.fpn_bottleneck = FoldedConvModule(head.fpn_bottleneck)

    def forward(self, features: list[Tensor]) -> Tensor:
        sizes = self.sizes
        top, pyramid = features[-1], [features[-1]]
        for i, (scale, module) in enumerate(zip(self.scales, self.pyramid)):
            rows = module(getattr(self, f'pool{i}') @ top, (scale, scale))
            pyramid.append(self.upsample(rows, (scale, scale), sizes[-1]))
        maps = [lateral(rows, size)
                for lateral, rows, size in zip(self.laterals, features, sizes)]
        maps.append(self.bottleneck(torch.cat(pyramid, 1), sizes[-1]))
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + self.upsample(maps[i], sizes[i], sizes[i - 1])
        maps = [conv(rows, size) for conv, rows, size in zip(self.fpn, maps, sizes)] + maps[-1:]
        wide = torch.cat([self.upsample(rows, size, sizes[0])
                          for rows, size in zip(maps, sizes)], 1)
        return self.fpn_bottleneck(wide, sizes[0])


class FoldedSegmentor(nn.Module):
    """A whole segmentor for images of one size, in float64 until it is converted.

    Args:
        model: The trained segmentor.
        size: Height and width of images, multiples of 4, 36 or more.

    Raises:
        UserError: Something in the model does not fold, or the size is no multiple of 4.
    """

    def __init__(self, model: EncoderDecoder, size: Size) -> None:
        super().__init__()
        heads = {BinarySegformerHead: FoldedSegformerHead, BinaryUPerHead: FoldedUPerHead}
        kind = heads.get(type(model.decode_head))
        if not isinstance(model.backbone, BHViT) or kind is None:
            raise UserError(
                f'the model is {type(model.backbone).__name__} with '
                f'{type(model.decode_head).__name__}; the benchmark takes BHViT with '
                'BinarySegformerHead or BinaryUPerHead')
        if any(length % 4 or length < SMALLEST for length in size):
            raise UserError(f'the size {size[0]}×{size[1]} is not a multiple of 4, at least '
                            f'{SMALLEST}, in height and width: baselines are exported for such '
                            'sizes only')
        self.size = tuple(size)
        self.backbone = FoldedBHViT(model.backbone, Pixels.of(model), size)
        self.head = kind(model.decode_head, self.backbone.sizes)
        self.labels = Labels(model.decode_head.conv_seg, self.backbone.sizes[0], self.size,
                             model.decode_head.align_corners)
        self.eval().requires_grad_(False)

    def logits(self, image: Tensor) -> Tensor:
        """Map an image ``(H, W, C)``, red first, to logits ``(1, classes, H/4, W/4)``."""
        return self.labels.logits(self.head(self.backbone(image)))

    def forward(self, image: Tensor) -> Tensor:
        """Map an image ``(H, W, C)``, red first, to labels ``(H, W)``, uint8."""
        return self.labels(self.head(self.backbone(image)))
