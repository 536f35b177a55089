from .binary_heads import BinaryConvModule, BinarySegformerHead, BinaryUPerHead
from .top_down_head import TopDownHead

__all__ = ['BinaryConvModule', 'BinarySegformerHead', 'BinaryUPerHead', 'TopDownHead']
