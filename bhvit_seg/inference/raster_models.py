"""What maps rasters: a checkpoint run by torch, or a packed model run by the engine.

Either gives one score per class for each cell of a window. Torch is imported only where a
checkpoint is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bhvit_seg.errors import UserError

DEFAULT_WINDOW = (512, 512)


class RasterModel(Protocol):
    """What computes the scores of windows.

    Attributes:
        name: What the model is called.
        classes: Their names.
        palette: A colour (RGB) for each class.
        channels: How many bands it takes.
        eight_bit: Whether it was trained on 8-bit images.
        fill: A value for each channel that means nothing to the model.
        window: Height and width of the training crop in pixels.
        cell: Side of the square of pixels that shares one score.
        batch: How many windows it computes at once.
        resizes: Whether it was tested on images brought to another size.
        digest: What tells it from other models.
    """

    name: str
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    channels: int
    eight_bit: bool
    fill: tuple[float, ...]
    window: tuple[int, int]
    cell: int
    batch: int
    resizes: bool
    digest: str

    def scores(self, windows: np.ndarray) -> np.ndarray:
        """Return scores ``(B, classes, h / cell, w / cell)``, float32, of ``(B, h, w, C)``."""

    def label(self, scores: np.ndarray) -> np.ndarray:
        """Return the highest class, ``(cell * h, cell * w)`` uint8, of ``(classes, h, w)``."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from; can be sent to another process and loaded there.

    Attributes:
        packed: A packed model; else ``config`` and ``checkpoint``.
        config: The config file.
        checkpoint: The weights.
        device: Where torch computes. Defaults to a GPU if there is one.
        threads: How many threads compute. Defaults to the cores that the process may use.
        cfg_options: Settings that override the config's, by dotted key.
    """

    packed: str | None = None
    config: str | None = None
    checkpoint: str | None = None
    device: str | None = None
    threads: int | None = None
    cfg_options: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """The files that are given."""
        return [file for file in (self.packed, self.config, self.checkpoint) if file is not None]

    def load(self) -> RasterModel:
        """Load the model.

        Raises:
            UserError: It cannot be loaded, or maps no rasters.
        """
        if self.packed is not None:
            return PackedRasterModel(self.packed, self.threads)
        return TorchRasterModel(self)


class PackedRasterModel:
    """A packed model, see :class:`RasterModel`.

    Args:
        path: A file that ``tools/export_packed.py`` wrote.
        threads: How many threads compute.

    Raises:
        UserError: The file is no packed model, or the engine is not built.
    """

    batch = 1
    cell = 4

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        from bhvit_seg.native import PackedSegmentor
        from bhvit_seg.native.file_format import read_packed

        self.segmentor = PackedSegmentor(path, threads)
        meta = self.segmentor.meta
        if meta.get('align_corners'):
            raise UserError(f'the packed model {path} stretches its scores with '
                            'align_corners=True, which ties them to the size of the image: give '
                            'its --config and --checkpoint instead')
        self.name = meta.get('name') or Path(path).stem
        self.channels = int(meta['channels'])
        self.classes = list(meta['classes'])
        self.palette = meta['palette']
        self.eight_bit = meta.get('color_type') == 'color' and not meta.get('lidar')
        self.fill = tuple(read_packed(path).tensors['preprocess.mean'].astype(float).tolist())
        self.window = tuple(meta.get('window') or DEFAULT_WINDOW)
        self.resizes = meta.get('test_scale') is not None
        self.digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def scores(self, windows: np.ndarray) -> np.ndarray:
        return self.segmentor.logits(windows)

    def label(self, scores: np.ndarray) -> np.ndarray:
        return self.segmentor.label(scores)


class TorchRasterModel:
    """A checkpoint, see :class:`RasterModel`.

    Args:
        source: Config, checkpoint, device and threads.

    Raises:
        UserError: Something given is wrong.
    """

    def __init__(self, source: ModelSource) -> None:
        import torch

        from bhvit_seg.inference.torch_predictor import Predictor
        from bhvit_seg.native.export import read_preprocessing
        from bhvit_seg.native.packed_meta import describe

        if source.threads is not None:
            torch.set_num_threads(source.threads)
        predictor = Predictor(source.config, source.checkpoint, source.device, source.cfg_options)
        meta = describe(predictor, source.config, source.checkpoint)
        self.model = predictor.model
        self.device = next(self.model.parameters()).device
        self.name = meta['name']
        self.channels = meta['channels']
        self.classes = meta['classes']
        self.palette = meta['palette']
        self.eight_bit = meta['color_type'] == 'color' and not meta['lidar']
        self.window = tuple(meta['window'] or DEFAULT_WINDOW)
        self.resizes = meta['test_scale'] is not None
        self.batch = 8 if self.device.type == 'cuda' else 1
        preprocessing, order = read_preprocessing(self.model)
        self.fill = tuple(preprocessing['mean'][np.argsort(order)].astype(float).tolist())
        self.digest = hashlib.sha256(
            f'{meta["source"]}{predictor.cfg.model.to_dict()}'.encode()).hexdigest()
        self.cell = self._find_cell()

    def _find_cell(self) -> int:
        """Return how many pixels share a score; 1 where scores have to be stretched first."""
        if self.model.align_corners:
            return 1
        side = 128
        rows, columns = self._forward(
            np.zeros((1, side, side, self.channels), np.uint8)).shape[2:]
        return side // rows if rows == columns and side % rows == 0 else 1

    def _forward(self, windows: np.ndarray):
        """Return the head's scores, a tensor, of windows ``(B, h, w, C)``, red first."""
        import torch

        order = [2, 1, 0, *range(3, self.channels)] if self.channels >= 3 else slice(None)
        planes = np.ascontiguousarray(windows[..., order].transpose(0, 3, 1, 2))
        with torch.no_grad():
            data = self.model.data_preprocessor({'inputs': list(torch.from_numpy(planes))})
            return self.model(torch.as_tensor(data['inputs'], device=self.device), mode='tensor')

    def scores(self, windows: np.ndarray) -> np.ndarray:
        import torch

        scores = self._forward(windows)
        size = tuple(side // self.cell for side in windows.shape[1:3])
        if scores.shape[2:] != size:
            scores = torch.nn.functional.interpolate(
                scores, size, mode='bilinear', align_corners=self.model.align_corners)
        return scores.float().cpu().numpy()

    def label(self, scores: np.ndarray) -> np.ndarray:
        import torch

        if self.cell == 1:
            return scores.argmax(0).astype(np.uint8)
        size = [side * self.cell for side in scores.shape[1:]]
        with torch.no_grad():
            stretched = torch.nn.functional.interpolate(
                torch.from_numpy(scores)[None], size, mode='bilinear', align_corners=False)
            return stretched[0].argmax(0).to(torch.uint8).numpy()
