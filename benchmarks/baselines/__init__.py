"""Other binary networks, which suites compare with BHViT; ``custom_imports`` of their configs."""

from .binary_resnet import BinaryResNet
from .binary_vit import BinaryViT

__all__ = ['BinaryResNet', 'BinaryViT']
