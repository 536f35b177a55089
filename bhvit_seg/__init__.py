"""1-bit vision transformers for semantic segmentation with mmsegmentation.

Importing the package is light: it gives the version and nothing else. ``bhvit_seg.models``,
``bhvit_seg.datasets``, ``bhvit_seg.hooks`` and ``bhvit_seg.loops`` register their classes
in mmseg's registries when they are imported.
"""

__version__ = '0.1.0'
