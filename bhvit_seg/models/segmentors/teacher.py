"""A trained segmentor that teaches: its logits and its feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..teacher import FrozenTeacher


class SegmentorTeacher(FrozenTeacher):
    """Any segmentor of mmseg with its weights; see :class:`FrozenTeacher`."""

    registry = MODELS
    _features: Sequence[Tensor] = ()

    def load(self, device: torch.device | str) -> None:
        super().load(device)
        source = self.model.neck if self.model.with_neck else self.model.backbone
        source.register_forward_hook(self._keep_features)

    def _keep_features(self, module: nn.Module, inputs: Any, features: Sequence[Tensor]) -> None:
        self._features = features

    @torch.no_grad()
    def __call__(self, inputs: Tensor,
                 data_samples: Sequence[SegDataSample]) -> tuple[Tensor, Sequence[Tensor]]:
        """Return what the teacher says about images.

        Args:
            inputs: Images ``(B, C, H, W)`` as the student gets them.
            data_samples: One for each image.

        Returns:
            Logits ``(B, classes, H, W)`` and the feature maps that its head gets.
        """
        size = inputs.shape[2:]
        metas = [{**sample.metainfo, 'img_shape': size, 'pad_shape': size}
                 for sample in data_samples]
        logits = self.model.encode_decode(inputs, metas)
        features, self._features = self._features, ()
        return logits, features
