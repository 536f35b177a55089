from .binary_heads import BinarySegformerHead, BinaryUPerHead
from .top_down_head import TopDownHead

__all__ = ['BinarySegformerHead', 'BinaryUPerHead', 'TopDownHead']
