"""Prediction of image files: what ``tools/predict.py`` does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bhvit_seg.mm  # noqa: F401  isort: skip
import numpy as np
import torch
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from rich.console import Console
from rich.progress import track

from bhvit_seg.apis.config import explain_config_errors, load_config, require_settings
from bhvit_seg.apis.inputs import find_images
from bhvit_seg.apis.pictures import Palette, write_labels, write_overlay
from bhvit_seg.checkpoint import load_weights
from bhvit_seg.datasets import CenterCropEvaluation, LoadLidarChannels
from bhvit_seg.datasets.decoding import read_image
from bhvit_seg.datasets.rs_lvf import LIDAR_SUFFIXES
from bhvit_seg.errors import UserError, find_user_error
from bhvit_seg.fileio import make_output_folder, write_json
from bhvit_seg.mm import first_line

RECORD = 'prediction.json'


@dataclass
class PredictionReport:
    """What became of the images.

    Attributes:
        written: Images predicted now.
        skipped: Images whose predictions were there already.
        failed: A sentence for each image that could not be predicted.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


class Predictor:
    """A model with its weights, and the pipeline that feeds it single images.

    Args:
        config: The config file.
        checkpoint: The weights; they have to be exactly those of the model.
        device: Where to compute. Defaults to a GPU if there is one.
        cfg_options: Settings that override the config's, by dotted key.

    Attributes:
        palette: A colour (RGB) for each class.

    Raises:
        UserError: Something given is wrong.
    """

    def __init__(self, config: str | Path, checkpoint: str | Path, device: str | None = None,
                 cfg_options: dict[str, Any] | None = None) -> None:
        cfg = load_config(config, cfg_options)
        require_settings(cfg, config, 'model')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        cfg.model.pop('init_cfg', None)
        with explain_config_errors():
            self.model = MODELS.build(cfg.model)
            self.pipeline = build_pipeline(cfg)
        meta = load_weights(self.model, checkpoint).get('meta', {}).get('dataset_meta')
        self.palette = find_palette(cfg, meta, self.model.decode_head.num_classes)
        try:
            self.model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()
        except (RuntimeError, AssertionError) as error:
            raise UserError(f'the device {device} cannot be used: {first_line(error)}') from error

    @property
    def reads_lidar(self) -> bool:
        """Whether the pipeline wants a LiDAR raster with each image."""
        return any(isinstance(step, LoadLidarChannels) for step in self.pipeline)

    @torch.no_grad()
    def __call__(self, image: Path, lidar: Path | None = None) -> np.ndarray:
        """Return the class ids (H, W) of an image file.

        Raises:
            UserError: The file is damaged or does not suit the model.
        """
        results = {'img_path': str(image)}
        if lidar is not None:
            results['lidar_path'] = str(lidar)
        for step in self.pipeline:
            results = step(results)
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


def find_palette(cfg: Config, meta: dict | None, num_classes: int) -> Palette:
    """Return the colours of the classes: of the checkpoint, the config or the dataset's class."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    known = DATASETS.get(dataset['type']) if 'type' in dataset else None
    for source in (meta, dataset.get('metainfo'), getattr(known, 'METAINFO', None)):
        palette = (source or {}).get('palette')
        if palette and len(palette) >= num_classes:
            return [list(map(int, colour)) for colour in palette]
    return np.random.default_rng(0).integers(40, 256, (num_classes, 3)).tolist()


def predict(inputs: Sequence[str | Path],
            config: str | Path,
            checkpoint: str | Path,
            out: str | Path,
            device: str | None = None,
            lidar: str | Path | None = None,
            opacity: float = 0.5,
            overlay: bool = True,
            overwrite: bool = False,
            cfg_options: dict[str, Any] | None = None) -> PredictionReport:
    """Predict images into ``out/labels`` and ``out/overlays``.

    Label maps are 8-bit PNGs whose values are the model's class ids. What is there already is
    kept, so a prediction that was interrupted goes on. An image that fails does not stop the
    others.

    Args:
        inputs: Images, folders or glob patterns.
        config: The config file.
        checkpoint: The weights.
        out: The output folder.
        device: Where to compute. Defaults to a GPU if there is one.
        lidar: The folder with a raster for each image, of the same path below it; needed by
            models of camera and LiDAR.
        opacity: Share of the class colours in the overlays, 0 to 1.
        overlay: Write overlays.
        overwrite: Predict everything anew.
        cfg_options: Settings that override the config's, by dotted key.

    Raises:
        UserError: Something given is wrong.
    """
    if not 0 <= opacity <= 1:
        raise UserError(f'--opacity is {opacity}, but it has to be between 0 and 1')
    names = find_images(inputs, out)
    predictor = Predictor(config, checkpoint, device, cfg_options)
    if predictor.reads_lidar and lidar is None:
        raise UserError('the model reads camera and LiDAR: give the folder of the rasters with '
                        '--lidar')
    out = make_output_folder(out, '--out')
    check_record(out, checkpoint, overwrite)
    report = PredictionReport()
    console = Console(stderr=True)
    for image in track(list(names), 'predicting', console=console,
                       disable=not console.is_terminal):
        labels_path = out / 'labels' / f'{names[image]}.png'
        overlay_path = out / 'overlays' / f'{names[image]}.png'
        wanted = [labels_path, overlay_path] if overlay else [labels_path]
        if not overwrite and all(path.exists() for path in wanted):
            report.skipped.append(image)
            continue
        try:
            # First of all: the overlay needs it, and a damaged file is noticed.
            picture = read_image(str(image), 'color', None)[..., ::-1]
            raster = None if lidar is None else find_raster(Path(lidar), names[image])
            labels = predictor(image, raster)
            write_labels(labels_path, labels, predictor.palette)
            if overlay:
                write_overlay(overlay_path, picture, labels, predictor.palette, opacity)
        except Exception as error:
            # Whatever is wrong with one image, the others are to be predicted.
            known = find_user_error(error)
            sentence = str(known) if known else f'{type(error).__name__}: {first_line(error)}'
            report.failed[image] = (
                sentence if str(image) in sentence else f'{image}: {sentence}')
        else:
            report.written.append(image)
    return report


def find_raster(folder: Path, name: Path) -> Path:
    """Return the LiDAR raster of an image.

    Raises:
        UserError: There is none.
    """
    for suffix in LIDAR_SUFFIXES:
        raster = folder / f'{name}{suffix}'
        if raster.is_file():
            return raster
    raise UserError(f'no raster {folder / name} ({", ".join(LIDAR_SUFFIXES)}): every image needs '
                    'one of the same name in --lidar')


def check_record(out: Path, checkpoint: str | Path, overwrite: bool) -> None:
    """Note in ``out`` which weights its predictions are of.

    Raises:
        UserError: They are of others, and would be taken for these.
    """
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    record = out / RECORD
    if record.is_file() and not overwrite:
        try:
            before = json.loads(record.read_text())
            before_digest, before_name = before['sha256'], before['checkpoint']
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{record} is damaged: give another --out, or --overwrite') from error
        if before_digest != digest:
            raise UserError(f'{out} holds predictions of {before_name}, not of {checkpoint}: '
                            'give another --out, or --overwrite')
    write_json(record, {'checkpoint': str(checkpoint), 'sha256': digest})
