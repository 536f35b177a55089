"""Reproducible synthetic aerial scenes with road masks and LiDAR heights, for demos and tests."""

from bhvit_seg.datasets.synthetic.scene import Scene, generate_scene
from bhvit_seg.datasets.synthetic.writing import write_dataset

__all__ = ['Scene', 'generate_scene', 'write_dataset']
