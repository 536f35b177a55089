from .bhvit import BHViT
from .efficientnet_lite import EfficientNetLite

__all__ = ['BHViT', 'EfficientNetLite']
