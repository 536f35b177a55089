from .bhvit import BHViT

__all__ = ['BHViT']
