"""A small feature pyramid (FPN, arXiv 1612.03144) that ends in one map at the finest stride."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class TopDownHead(BaseDecodeHead):
    """1×1 convolutions, sums from the coarsest map to the finest (first in ``in_index``), one 3×3
    convolution there: a quarter of the cost of mmseg's ``FPN`` with ``FPNHead``."""

    def __init__(self, **kwargs) -> None:
        super().__init__(input_transform='multiple_select', **kwargs)
        self.laterals = nn.ModuleList(
            nn.Conv2d(channels, self.channels, 1) for channels in self.in_channels)
        self.fusion = ConvModule(self.channels, self.channels, 3, padding=1,
                                 conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg,
                                 act_cfg=self.act_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map feature maps ``(B, C, h, w)`` to logits ``(B, classes, h, w)`` of the finest."""
        maps = [lateral(level)
                for lateral, level in zip(self.laterals, self._transform_inputs(inputs))]
        total = maps[-1]
        for finer in reversed(maps[:-1]):
            total = finer + resize(total, finer.shape[2:], mode='bilinear',
                                   align_corners=self.align_corners)
        return self.cls_seg(self.fusion(total))
