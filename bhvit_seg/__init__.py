"""1-bit vision transformers for semantic segmentation; ``bhvit_seg.modules`` registers all
parts."""

__version__ = '0.1.0'
