"""What a packed model says besides arithmetic: classes, colours, and how it wants its images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmcv.transforms import LoadImageFromFile
from mmcv.transforms import Resize as MMCVResize
from mmengine.config import Config
from mmseg.datasets.transforms import PackSegInputs, ResizeShortestEdge

from bhvit_seg.datasets.image_io import COLOUR_FLAGS
from bhvit_seg.datasets.transforms import LoadAerialAnnotations, LoadAerialImage, LoadLidarChannels
from bhvit_seg.inference.torch_predictor import Predictor, find_dataset_meta

_IMAGE_LOADERS = (LoadAerialImage, LoadImageFromFile)
# Steps of a test pipeline that prediction from a packed model does, or has no need of.
_KNOWN_STEPS = (*_IMAGE_LOADERS, LoadAerialAnnotations, LoadLidarChannels, MMCVResize,
                PackSegInputs, ResizeShortestEdge)


def describe(predictor: Predictor, config: str | Path, checkpoint: str | Path) -> dict[str, Any]:
    """Return what a packed model says about the model besides arithmetic."""
    model, cfg = predictor.model, predictor.cfg
    classes = model.decode_head.num_classes
    names = [list(source['classes']) for source in find_dataset_meta(cfg, predictor.dataset_meta)
             if len(source.get('classes') or ()) == classes]
    lidar = [{'channels': step.channels, 'fill': step.fill, 'nodata': step.nodata}
             for step in predictor.pipeline if isinstance(step, LoadLidarChannels)]
    channels = model.backbone.in_channels
    camera = ['red', 'green', 'blue'] if channels >= 3 else []
    further = 'lidar' if lidar else 'channel'
    return {
        'name': Path(config).stem,
        'classes': names[0] if names else [f'class {index}' for index in range(classes)],
        'palette': predictor.palette[:classes],
        'window': find_window(cfg),
        'channels': channels,
        'channel_order': camera + [f'{further} {index}' for index in range(channels - len(camera))],
        'color_type': find_color_type(predictor.pipeline),
        'test_scale': find_test_scale(predictor.pipeline),
        'align_corners': bool(model.align_corners),
        'lidar': lidar[0] if lidar else None,
        'source': hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest(),
    }


def find_window(cfg: Config) -> list[int] | None:
    """Return height and width of the training crop, if the config tells."""
    size = (cfg.model.get('data_preprocessor') or {}).get('size') or cfg.get('crop_size')
    return None if size is None else [int(side) for side in size]


def find_color_type(pipeline: Sequence[Any]) -> str:
    """Return how images are decoded: ``'color'`` or ``'unchanged'``."""
    for step in pipeline:
        if isinstance(step, _IMAGE_LOADERS) and step.color_type in COLOUR_FLAGS:
            return step.color_type
    return 'color'


def find_test_scale(pipeline: Sequence[Any]) -> dict[str, Any] | None:
    """Return the size that a test pipeline brings images to, if it resizes them."""
    for step in pipeline:
        if isinstance(step, MMCVResize) and step.scale is not None:
            return {'scale': [int(side) for side in step.scale], 'keep_ratio': step.keep_ratio}
        if isinstance(step, ResizeShortestEdge):
            short = step.scale if isinstance(step.scale, int) else min(step.scale)
            return {'scale': [int(step.max_size), int(short)], 'keep_ratio': True}
    return None


def find_differences(predictor: Predictor) -> list[str]:
    """Return a sentence for whatever prediction from the packed model does differently."""
    sentences = []
    if predictor.model.test_cfg.get('mode', 'whole') != 'whole':
        sentences.append('the config predicts in sliding windows (model.test_cfg.mode), the packed '
                         'model takes images as a whole: cut large ones yourself')
    for step in predictor.pipeline:
        if isinstance(step, _IMAGE_LOADERS) and step.color_type not in COLOUR_FLAGS:
            sentences.append('tools/predict.py --packed reads images in colour, the test pipeline '
                             f'with color_type={step.color_type!r}')
        relative = isinstance(step, MMCVResize) and step.scale is None
        if relative or not isinstance(step, _KNOWN_STEPS):
            sentences.append(f'tools/predict.py --packed leaves out the step {step!r} of the test '
                             'pipeline')
    return sentences
