from .bhvit import BHViT
from .binary_resnet import BinaryResNet
from .binary_vit import BinaryViT
from .efficientnet_lite import EfficientNetLite

__all__ = ['BHViT', 'BinaryResNet', 'BinaryViT', 'EfficientNetLite']
