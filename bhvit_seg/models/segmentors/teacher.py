"""A trained segmentor that teaches: its logits and its feature maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from bhvit_seg.errors import UserError, first_line

from ..losses.distillation import side
from ..teacher import FrozenTeacher

# What torch says of memory, devices and kernels.
NO_MATTER_OF_SIZE = re.compile('memory|CUDA|cuDNN|NCCL|same device', re.IGNORECASE)


class SegmentorTeacher(FrozenTeacher):
    """A segmentor of mmseg with its weights; see :class:`FrozenTeacher`.

    Its head has to give a logit for each class and pixel, as all do that are a ``BaseDecodeHead``.
    """

    registry = MODELS
    _features: Sequence[Tensor] = ()

    def load(self, device: torch.device | str) -> None:
        super().load(device)
        heads = getattr(self.model, 'decode_head', None)
        head = heads[-1] if isinstance(heads, nn.ModuleList) else heads
        if not isinstance(head, BaseDecodeHead) or not hasattr(self.model, 'backbone'):
            raise UserError(f'the teacher {self.checkpoint} is a {type(self.model).__name__} with '
                            f'a {type(head).__name__}, which gives no logits of classes: set '
                            'model.teacher to a segmentor with a backbone and a decode head')
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

        Raises:
            UserError: It fails on images of this size.
        """
        size = inputs.shape[2:]
        metas = [{**sample.metainfo, 'img_shape': size, 'pad_shape': size}
                 for sample in data_samples]
        try:
            logits = self.model.encode_decode(inputs, metas)
        except (RuntimeError, ValueError, AssertionError) as error:
            if isinstance(error, UserError) or NO_MATTER_OF_SIZE.search(str(error)):
                raise
            raise UserError(f'the teacher {self.checkpoint} fails on images of {side(inputs)} '
                            f'pixels (height × width): {first_line(error)}; if it takes images '
                            'of one size alone, train at that') from error
        features, self._features = self._features, ()
        return logits, features
