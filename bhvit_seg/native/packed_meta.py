"""Meta data of a model: classes, colours, and preprocessing of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmcv.transforms import Resize as MMCVResize
from mmseg.datasets.transforms import PackSegInputs, ResizeShortestEdge
from torch import nn

from bhvit_seg.datasets.image_io import COLOUR_FLAGS
from bhvit_seg.datasets.transforms import LoadAerialAnnotations, LoadLidarChannels
from bhvit_seg.training.trained import IMAGE_LOADERS, TrainedSegmentor, find_dataset_meta

# Steps of a test pipeline that prediction from a packed model does or does not need.
_KNOWN_STEPS = (*IMAGE_LOADERS, LoadAerialAnnotations, LoadLidarChannels, MMCVResize,
                PackSegInputs, ResizeShortestEdge)


def describe(trained: TrainedSegmentor) -> dict[str, Any]:
    """Return the meta data of a model, see docs/packed.md."""
    model, cfg, classes = trained.model, trained.cfg, trained.n_labels
    names = [list(source['classes']) for source in find_dataset_meta(cfg, trained.dataset_meta)
             if len(source.get('classes') or ()) == classes]
    lidar = [{'channels': step.channels, 'fill': step.fill, 'nodata': step.nodata}
             for step in trained.pipeline if isinstance(step, LoadLidarChannels)]
    decoding = [step.color_type for step in trained.pipeline
                if isinstance(step, IMAGE_LOADERS) and step.color_type in COLOUR_FLAGS]
    channels = count_channels(model)
    camera = ['red', 'green', 'blue'] if channels >= 3 else []
    further = 'lidar' if lidar else 'channel'
    window = (cfg.model.get('data_preprocessor') or {}).get('size') or cfg.get('crop_size')
    return {
        'name': trained.config.stem,
        'classes': names[0] if names else [f'class {index}' for index in range(classes)],
        'palette': trained.palette[:classes],
        'window': None if window is None else [int(side) for side in window],
        'ground_sampling_distance': cfg.get('ground_sampling_distance'),
        'channels': channels,
        'channel_order': camera + [f'{further} {index}' for index in range(channels - len(camera))],
        'color_type': decoding[0] if decoding else 'color',
        'test_scale': _find_test_scale(trained.pipeline),
        'align_corners': bool(model.align_corners),
        'lidar': lidar[0] if lidar else None,
        'source': hashlib.sha256(trained.checkpoint.read_bytes()).hexdigest(),
    }


def count_channels(model: nn.Module) -> int:
    """Return the channels of images; not every backbone of mmseg declares them."""
    known = getattr(getattr(model, 'backbone', None), 'in_channels', None)
    if isinstance(known, int):
        return known
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    return 3 if mean is None else len(mean)


def _find_test_scale(pipeline: Sequence[Any]) -> dict[str, Any] | None:
    """Return the size to which a test pipeline resizes images, if it does."""
    for step in pipeline:
        if isinstance(step, MMCVResize) and step.scale is not None:
            return {'scale': [int(side) for side in step.scale], 'keep_ratio': step.keep_ratio}
        if isinstance(step, ResizeShortestEdge):
            short = step.scale if isinstance(step.scale, int) else min(step.scale)
            return {'scale': [int(step.max_size), int(short)], 'keep_ratio': True}
    return None


def find_differences(trained: TrainedSegmentor) -> list[str]:
    """Return a sentence for each difference of prediction from the packed model."""
    sentences = []
    if trained.model.test_cfg.get('mode', 'whole') != 'whole':
        sentences.append('the config predicts in sliding windows (model.test_cfg.mode), the packed '
                         'model takes images up to 2048×2048 pixels as a whole')
    for step in trained.pipeline:
        if isinstance(step, IMAGE_LOADERS) and step.color_type not in COLOUR_FLAGS:
            sentences.append('`bhvit-seg predict --packed` reads images in colour, the test '
                             f'pipeline with color_type={step.color_type!r}')
        relative = isinstance(step, MMCVResize) and step.scale is None
        if relative or not isinstance(step, _KNOWN_STEPS):
            sentences.append(f'`bhvit-seg predict --packed` leaves out the step {step!r} of the '
                             'test pipeline')
    return sentences
