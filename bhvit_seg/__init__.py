"""1-bit vision transformers for semantic segmentation with mmsegmentation.

Importing the package is light: it gives the version and nothing else. Importing
``bhvit_seg.modules`` registers everything that a config names.
"""

__version__ = '0.1.0'
