"""Datasets, their transforms and label checks; registers in mmseg's registries on import."""

import bhvit_seg.mm  # noqa: F401  isort: skip
from bhvit_seg.datasets.rs_lvf import RSLVFDataset
from bhvit_seg.datasets.transforms import (
    CameraPhotoMetricDistortion,
    CenterCropEvaluation,
    LoadAerialAnnotations,
    LoadAerialImage,
    LoadLidarChannels,
    RandomScaleCrop,
)

__all__ = [
    'CameraPhotoMetricDistortion', 'CenterCropEvaluation', 'LoadAerialAnnotations',
    'LoadAerialImage', 'LoadLidarChannels', 'RSLVFDataset', 'RandomScaleCrop'
]
