"""1-bit vision transformers for semantic segmentation with mmsegmentation.

This import gives only the version; ``bhvit_seg.modules`` registers everything that configs name.
"""

__version__ = '0.1.0'
