from .binary_heads import BinarySegformerHead, BinaryUPerHead

__all__ = ['BinarySegformerHead', 'BinaryUPerHead']
