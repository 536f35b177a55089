"""Reproducible synthetic aerial scenes with road masks and LiDAR heights, for demos and tests.

Scenes need context: roofs and car parks have the colour of roads, paths have their shape, and trees
and shadows hide parts of them.
"""

from bhvit_seg.datasets.synthetic.scene import Scene, generate_scene
from bhvit_seg.datasets.synthetic.writing import write_dataset

__all__ = ['Scene', 'generate_scene', 'write_dataset']
