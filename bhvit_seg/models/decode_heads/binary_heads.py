"""mmseg's SegFormer and UPerNet heads with binary convolutions and real-valued shortcuts.

Heads that use ``conv_cfg`` can be binarized by config. These two lose less: a shortcut carries real
values around each binary convolution, and the classifier is full-precision.
"""

from __future__ import annotations

from mmseg.models.decode_heads import SegformerHead, UPerHead
from mmseg.registry import MODELS

from ..conv_module import binarize_conv_modules


@MODELS.register_module()
class BinarySegformerHead(SegformerHead):
    """SegFormer's head: 1×1 convolutions to a common width, upsampled, fused by another one.

    Args:
        binary (bool): ``False`` gives the full-precision twin. Defaults to True.
        norm_cfg (dict): ``type`` ``'BN'``, ``'SyncBN'`` or ``'LN'``. Defaults to BN.
        kwargs: See mmseg's ``SegformerHead``; ``channels`` has to be a multiple or a divisor
            of each of ``in_channels``. ``conv_cfg`` and ``act_cfg`` have no effect.
    """

    def __init__(self, binary: bool = True, norm_cfg: dict | None = None, **kwargs) -> None:
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        super().__init__(norm_cfg=norm_cfg, **kwargs)
        binarize_conv_modules(self, norm_cfg, binary)


@MODELS.register_module()
class BinaryUPerHead(UPerHead):
    """UPerNet's head: pyramid pooling, top-down path and 3×3 convolutions.

    Args:
        binary (bool): ``False`` gives the full-precision twin. Defaults to True.
        norm_cfg (dict): ``type`` ``'BN'``, ``'SyncBN'`` or ``'LN'``. Defaults to BN.
        kwargs: See mmseg's ``UPerHead``; ``channels`` has to be a multiple or a divisor
            of each of ``in_channels``. ``conv_cfg`` and ``act_cfg`` have no effect.
    """

    def __init__(self, binary: bool = True, norm_cfg: dict | None = None, **kwargs) -> None:
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        super().__init__(norm_cfg=norm_cfg, **kwargs)
        binarize_conv_modules(self, norm_cfg, binary)
