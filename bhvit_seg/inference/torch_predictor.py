"""Predictions of torch, from a config and a checkpoint."""

from __future__ import annotations

import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample

from bhvit_seg.datasets.image_io import swap_red_and_blue
from bhvit_seg.inference.predictor import LoadedImage, Predictor
from bhvit_seg.native.packed_meta import describe
from bhvit_seg.training.trained import TrainedSegmentor, pixels_of


class TorchPredictor(Predictor):
    """A checkpoint with its config; a UserError if it cannot be loaded or does not fit."""

    def __init__(self, config: str | Path, checkpoint: str | Path, device: str | None = None,
                 cfg_options: dict[str, Any] | None = None, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        trained = self.trained = TrainedSegmentor(config, checkpoint, device, cfg_options)
        self.model = trained.model
        self.device = next(self.model.parameters()).device
        meta = describe(trained)
        identity = f'{meta["source"]}{trained.cfg.model.to_dict()}{trained.pipeline}'
        super().__init__(meta, self._find_fill(meta['channels']),
                         hashlib.sha256(identity.encode()).hexdigest())
        self.batch = 8 if self.device.type == 'cuda' else 1
        self.slides = self.model.test_cfg.get('mode', 'whole') == 'slide'

    @functools.cached_property
    @torch.no_grad()
    def cell(self) -> int | None:
        if self.model.align_corners:
            return 1  # scores are upsampled first
        scores, (height, width) = self._forward(np.zeros((1, 128, 128, self.channels), np.uint8))
        if not isinstance(scores, torch.Tensor) or scores.ndim != 4:
            return None
        rows, columns = scores.shape[2:]
        cell = height // rows
        return cell if (cell * rows, cell * columns) == (height, width) else 1

    def load(self, image: Path, lidar: Path | None = None) -> LoadedImage:
        results = self.trained.load(image, lidar)
        return LoadedImage(results['picture'], pixels_of(results), results)

    def prepare(self, picture: np.ndarray) -> LoadedImage:
        return LoadedImage(picture, pixels_of(results := self.trained.load(picture)), results)

    @torch.no_grad()
    def predict(self, image: LoadedImage) -> np.ndarray:
        sample, = self.model.test_step({'inputs': [image.results['inputs']],
                                        'data_samples': [image.results['data_samples']]})
        return sample.pred_sem_seg.data.squeeze(0).long().cpu().numpy()

    @torch.no_grad()
    def scores(self, windows: np.ndarray) -> np.ndarray:
        scores, padded = self._forward(windows)
        rows, columns = (side // self.cell for side in windows.shape[1:3])
        size = tuple(side // self.cell for side in padded)
        if scores.shape[2:] != size:
            scores = F.interpolate(scores, size, mode='bilinear',
                                   align_corners=self.model.align_corners)
        return scores[..., :rows, :columns].float().cpu().numpy()

    def label(self, scores: np.ndarray) -> np.ndarray:
        if self.cell == 1:
            return scores.argmax(0).astype(np.uint8)
        size = [side * self.cell for side in scores.shape[1:]]
        upsampled = F.interpolate(torch.from_numpy(scores)[None], size, mode='bilinear')
        return upsampled[0].argmax(0).to(torch.uint8).numpy()

    def _forward(self, windows: np.ndarray) -> tuple[torch.Tensor, tuple[int, int]]:
        """Return the head's scores of windows ``(B, h, w, C)`` and the size they were padded to."""
        planes = np.ascontiguousarray(swap_red_and_blue(windows).transpose(0, 3, 1, 2))
        data = self.model.data_preprocessor({
            'inputs': list(torch.from_numpy(planes)),
            'data_samples': [SegDataSample() for _ in planes]})  # noted in them: the padding
        inputs = torch.as_tensor(data['inputs'], device=self.device)
        scores = self.model(inputs, mode='tensor')
        if isinstance(scores, torch.Tensor) and scores.shape[1] == 1:
            # One score is compared to a threshold: two classes, of which the first has score 0.
            threshold = self.model.decode_head.threshold
            scores = F.pad(scores - math.log(threshold / (1 - threshold)), (0, 0, 0, 0, 1, 0))
        return scores, tuple(inputs.shape[2:])

    def _find_fill(self, channels: int) -> np.ndarray:
        """Return the mean of each channel, red first."""
        preprocessor = self.model.data_preprocessor
        if not getattr(preprocessor, '_enable_normalize', False):
            return np.zeros(channels)
        mean = np.broadcast_to(preprocessor.mean.flatten().cpu().numpy(), channels)
        exchanges = any(getattr(preprocessor, name, False)
                        for name in ('channel_conversion', 'swap_red_and_blue'))
        return mean if exchanges else swap_red_and_blue(mean)
