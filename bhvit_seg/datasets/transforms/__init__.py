"""Pipeline steps that mmseg lacks: mask encodings, LiDAR channels, crops that favour classes."""

from bhvit_seg.datasets.transforms.geometry import CenterCropEvaluation, RandomScaleCrop
from bhvit_seg.datasets.transforms.loading import (
    LoadAerialAnnotations,
    LoadAerialImage,
    LoadLidarChannels,
)
from bhvit_seg.datasets.transforms.photometric import CameraPhotoMetricDistortion

__all__ = [
    'CameraPhotoMetricDistortion', 'CenterCropEvaluation', 'LoadAerialAnnotations',
    'LoadAerialImage', 'LoadLidarChannels', 'RandomScaleCrop'
]
