from .bhvit import BHViT
from .binary_resnet import BinaryResNet
from .binary_vit import BinaryViT

__all__ = ['BHViT', 'BinaryResNet', 'BinaryViT']
