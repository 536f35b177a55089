"""A trained segmentor, from its config and checkpoint, for prediction and export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets.transforms import LoadImageFromNDArray
from mmseg.registry import DATASETS, MODELS, TRANSFORMS

from bhvit_seg.datasets.image_io import swap_red_and_blue
from bhvit_seg.datasets.transforms import CenterCropEvaluation, LoadAerialImage, LoadLidarChannels
from bhvit_seg.errors import UserError, find_user_error, first_line
from bhvit_seg.models.weights import load_weights
from bhvit_seg.training.config import explain_config_errors, load_config, require_settings

IMAGE_LOADERS = (LoadAerialImage, LoadImageFromFile)


class TrainedSegmentor:
    """A model with its weights, and the pipeline that loads single images.

    Args:
        config, cfg_options: See :func:`~bhvit_seg.training.config.load_config`.
        checkpoint: The weights; they have to fit the model exactly.
        device: Defaults to a GPU if there is one.
    """

    def __init__(self, config: str | Path, checkpoint: str | Path, device: str | None = None,
                 cfg_options: dict[str, Any] | None = None) -> None:
        self.config, self.checkpoint = Path(config), Path(checkpoint)
        cfg = self.cfg = load_config(config, cfg_options)
        require_settings(cfg, config, 'model')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        cfg.model.pop('init_cfg', None)
        with explain_config_errors():
            self.model = MODELS.build(cfg.model)
            self.pipeline = build_pipeline(cfg)
        meta = load_weights(self.model, checkpoint).get('meta', {})
        self.dataset_meta = meta.get('dataset_meta')
        # Two class ids where one score is compared with a threshold.
        self.n_labels = max(self.model.num_classes, 2 if self.model.out_channels == 1 else 1)
        self.reads_lidar = any(isinstance(step, LoadLidarChannels) for step in self.pipeline)
        palettes = [source.get('palette') or () for source in find_dataset_meta(
            cfg, self.dataset_meta)]
        palettes.append(np.random.default_rng(0).integers(40, 256, (self.n_labels, 3)))
        self.palette = next([list(map(int, colour)) for colour in palette]
                            for palette in palettes if len(palette) >= self.n_labels)
        try:
            self.model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()
        except (RuntimeError, AssertionError) as error:
            raise UserError(f'the device {device} cannot be used: {first_line(error)}') from error

    def load(self, image: str | Path | np.ndarray, lidar: str | Path | None = None
             ) -> dict[str, Any]:
        """Run the test pipeline on an image file, or on an image (H, W, C) without the steps that
        read it; ``picture`` (H, W, C), red first, is the decoded image."""
        pipeline = self.pipeline
        if isinstance(image, np.ndarray):
            results = {'img': swap_red_and_blue(image)}
            pipeline = [LoadImageFromNDArray(), *(
                step for step in pipeline if not isinstance(step, IMAGE_LOADERS))]
            image = 'in memory'
        else:
            results = {'img_path': str(image)}
        if lidar is not None:
            results['lidar_path'] = str(lidar)
        picture = None
        try:
            for step in pipeline:
                results = step(results)
                if picture is None and 'img' in results:
                    picture = results['img'].copy()
        except Exception as error:
            if find_user_error(error):
                raise
            # decoders fail in their own ways
            raise UserError(f'image {image} cannot be read: {type(error).__name__}: '
                            f'{first_line(error)}') from error
        picture = picture.reshape(*picture.shape[:2], -1)
        return {**results, 'picture': swap_red_and_blue(picture)}

    def read(self, image: str | Path, lidar: str | Path | None = None) -> np.ndarray:
        """Return an image file as the test pipeline reads it, ``(H, W, C)``, red first."""
        return pixels_of(self.load(image, lidar))


def pixels_of(results: Mapping[str, Any]) -> np.ndarray:
    """Return the ``inputs`` of a pipeline as ``(H, W, C)``, red first."""
    return swap_red_and_blue(results['inputs'].numpy().transpose(1, 2, 0))


def test_dataset(cfg: Config) -> Mapping[str, Any]:
    return (cfg.get('test_dataloader') or {}).get('dataset') or {}


def build_pipeline(cfg: Config) -> list:
    """Build the test pipeline without annotations and crops for scores."""
    pipeline = cfg.get('test_pipeline') or test_dataset(cfg).get('pipeline')
    if not pipeline:
        raise UserError('the config has no test_pipeline: prediction does not know how to load '
                        'an image')
    steps = [TRANSFORMS.build(step) for step in pipeline]
    return [step for step in steps if not isinstance(step, (LoadAnnotations, CenterCropEvaluation))]


def find_dataset_meta(cfg: Config, meta: dict | None) -> list[Mapping[str, Any]]:
    """Return what the checkpoint, the config and the dataset's class declare about the data."""
    dataset = test_dataset(cfg)
    known = DATASETS.get(dataset['type']) if 'type' in dataset else None
    sources = (meta, dataset.get('metainfo'), getattr(known, 'METAINFO', None))
    return [source for source in sources if source]
