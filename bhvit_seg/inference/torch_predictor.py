"""Prediction of image files by torch: what ``tools/predict.py`` does with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS, TRANSFORMS

from bhvit_seg.datasets.transforms import CenterCropEvaluation, LoadLidarChannels
from bhvit_seg.errors import UserError, first_line
from bhvit_seg.inference.pictures import Palette
from bhvit_seg.inference.prediction import PredictionReport, predict_files
from bhvit_seg.models.weights import load_weights
from bhvit_seg.training.config import explain_config_errors, load_config, require_settings


class Predictor:
    """A model with its weights, and the pipeline that feeds it single images.

    Args:
        config: The config file.
        checkpoint: The weights; they have to be exactly those of the model.
        device: Where to compute. Defaults to a GPU if there is one.
        cfg_options: Settings that override the config's, by dotted key.

    Attributes:
        cfg: The config.
        model: The segmentor.
        pipeline: The steps of the test pipeline.
        dataset_meta: What the checkpoint says about the data it was trained on, or None.
        palette: A colour (RGB) for each class.

    Raises:
        UserError: Something given is wrong.
    """

    def __init__(self, config: str | Path, checkpoint: str | Path, device: str | None = None,
                 cfg_options: dict[str, Any] | None = None) -> None:
        cfg = self.cfg = load_config(config, cfg_options)
        require_settings(cfg, config, 'model')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        cfg.model.pop('init_cfg', None)
        with explain_config_errors():
            self.model = MODELS.build(cfg.model)
            self.pipeline = build_pipeline(cfg)
        meta = load_weights(self.model, checkpoint).get('meta', {})
        self.dataset_meta = meta.get('dataset_meta')
        self.palette = find_palette(cfg, self.dataset_meta,
                                    self.model.decode_head.num_classes)
        try:
            self.model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()
        except (RuntimeError, AssertionError) as error:
            raise UserError(f'the device {device} cannot be used: {first_line(error)}') from error

    @property
    def reads_lidar(self) -> bool:
        """Whether the pipeline wants a LiDAR raster with each image."""
        return any(isinstance(step, LoadLidarChannels) for step in self.pipeline)

    def load(self, image: Path, lidar: Path | None = None) -> dict[str, Any]:
        """Return ``inputs`` (C, H, W) and ``data_samples`` of an image file.

        Raises:
            UserError: The file is damaged.
        """
        results = {'img_path': str(image)}
        if lidar is not None:
            results['lidar_path'] = str(lidar)
        for step in self.pipeline:
            results = step(results)
        return results

    @torch.no_grad()
    def __call__(self, image: Path, lidar: Path | None = None) -> np.ndarray:
        """Return the class ids (H, W) of an image file.

        Raises:
            UserError: The file is damaged or does not suit the model.
        """
        results = self.load(image, lidar)
        sample, = self.model.test_step(
            {'inputs': [results['inputs']], 'data_samples': [results['data_samples']]})
        return sample.pred_sem_seg.data.squeeze(0).cpu().numpy()


def build_pipeline(cfg: Config) -> list:
    """Build the test pipeline without what only a test needs: annotations, scoring of crops."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    pipeline = cfg.get('test_pipeline') or dataset.get('pipeline')
    if not pipeline:
        raise UserError('the config has no test_pipeline: prediction does not know how to load '
                        'an image')
    steps = [TRANSFORMS.build(step) for step in pipeline]
    return [step for step in steps
            if not isinstance(step, (LoadAnnotations, CenterCropEvaluation))]


def find_dataset_meta(cfg: Config, meta: dict | None) -> list[Mapping[str, Any]]:
    """Return what is known of the data: of the checkpoint, the config, the dataset's class."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    known = DATASETS.get(dataset['type']) if 'type' in dataset else None
    sources = (meta, dataset.get('metainfo'), getattr(known, 'METAINFO', None))
    return [source for source in sources if source]


def find_palette(cfg: Config, meta: dict | None, num_classes: int) -> Palette:
    """Return the colours of the classes, made up where nobody knows them."""
    for source in find_dataset_meta(cfg, meta):
        palette = source.get('palette')
        if palette and len(palette) >= num_classes:
            return [list(map(int, colour)) for colour in palette]
    return np.random.default_rng(0).integers(40, 256, (num_classes, 3)).tolist()


def predict(inputs: Sequence[str | Path],
            config: str | Path,
            checkpoint: str | Path,
            out: str | Path,
            device: str | None = None,
            cfg_options: dict[str, Any] | None = None,
            **options) -> PredictionReport:
    """Predict images into ``out/labels`` and ``out/overlays``.

    Args:
        inputs: Images, folders or glob patterns.
        config: The config file.
        checkpoint: The weights.
        out: The output folder.
        device: Where to compute. Defaults to a GPU if there is one.
        cfg_options: Settings that override the config's, by dotted key.
        options: See :func:`bhvit_seg.inference.prediction.predict_files`.

    Raises:
        UserError: Something given is wrong.
    """
    return predict_files(inputs, lambda: Predictor(config, checkpoint, device, cfg_options),
                         checkpoint, out, **options)
