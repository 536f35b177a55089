"""The files of a model, and how it is loaded: by torch or by the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bhvit_seg.errors import UserError
from bhvit_seg.inference.predictor import Predictor


@dataclass(frozen=True)
class ModelSource:
    """The files and settings of a model, to be loaded here or in another process."""

    packed: str | Path | None = None  # else config and checkpoint
    config: str | Path | None = None
    checkpoint: str | Path | None = None
    device: str | None = None  # of torch; by default a GPU if there is one
    threads: int | None = None  # by default the cores that the process may use
    cfg_options: dict[str, Any] = field(default_factory=dict)  # by dotted key

    @property
    def weights(self) -> str:
        return str(self.checkpoint if self.packed is None else self.packed)

    @property
    def files(self) -> list[str]:
        return [str(file) for file in (self.packed, self.config, self.checkpoint) if file]

    def load(self, windows: bool = True) -> Predictor:
        """Load the model; a UserError if that fails, or if ``windows`` cannot be joined."""
        if self.packed is not None:
            from bhvit_seg.inference.packed_predictor import PackedPredictor

            model = PackedPredictor(self.packed, self.threads)
            cause, way_out = 'align_corners=True', 'its --config and --checkpoint instead'
        else:
            from bhvit_seg.inference.torch_predictor import TorchPredictor

            model = TorchPredictor(self.config, self.checkpoint, self.device, self.cfg_options,
                                   self.threads)
            cause, way_out = 'of its decode head', 'another model'
        if windows and model.cell is None:
            raise UserError(f'the scores of {self.weights} depend on the size of the image '
                            f'({cause}), so that windows of a raster cannot be joined: give '
                            f'{way_out}')
        return model
