"""mmseg's SegFormer and UPerNet heads with binary convolutions and real-valued shortcuts.

Heads that obey ``conv_cfg`` are binarized by config alone. These two do better: a shortcut passes
each binary convolution, so that only the classifier, which is real-valued, has to live on bits.
"""

from __future__ import annotations

from mmseg.models.decode_heads import SegformerHead, UPerHead
from mmseg.registry import MODELS

from ..conv_module import binarize_conv_modules


@MODELS.register_module()
class BinarySegformerHead(SegformerHead):
    """SegFormer's head: 1×1 convolutions to a common width, enlarged, joined by another.

    Args:
        binary (bool): ``False`` gives the full-precision twin. Defaults to True.
        norm_cfg (dict): ``type`` ``'BN'``, ``'SyncBN'`` or ``'LN'``. Defaults to BN.
        kwargs: See mmseg's ``SegformerHead``; ``channels`` and each of ``in_channels`` have to be
            multiples of one another. ``conv_cfg`` and ``act_cfg`` have no effect.
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
        kwargs: See mmseg's ``UPerHead``; ``channels`` and each of ``in_channels`` have to be
            multiples of one another. ``conv_cfg`` and ``act_cfg`` have no effect.
    """

    def __init__(self, binary: bool = True, norm_cfg: dict | None = None, **kwargs) -> None:
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        super().__init__(norm_cfg=norm_cfg, **kwargs)
        binarize_conv_modules(self, norm_cfg, binary)
