"""1-bit vision transformers for semantic segmentation; :mod:`bhvit_seg.modules` registers them."""

__version__ = '0.1.0'
