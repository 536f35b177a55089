"""Pre-training with a teacher (BHViT, arXiv 2503.02394): ``(1 − λ − β)·L_cls + λ·L_dis + β·L_re``.

The paper's backbone learns to classify from labels and from the logits of DeiT-Small. See also
:class:`~bhvit_seg.models.segmentors.DistillationSegmentor`.
"""

from collections.abc import Sequence

import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ..losses import PixelDistillationLoss
from ..teacher import FrozenTeacher, TaughtMixin


class ClassifierTeacher(FrozenTeacher):
    registry = MODELS

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Return logits ``(B, classes)`` of images ``(B, C, H, W)``."""
        return self.model(inputs, mode='tensor')


@MODELS.register_module()
class DistillationClassifier(TaughtMixin, ImageClassifier):
    """``ImageClassifier`` with a teacher; arguments and λ as for ``DistillationSegmentor``."""

    def __init__(self, *args, teacher: dict, distillation_weight: float = 0.8,
                 temperature: float = 1.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.set_teacher(ClassifierTeacher, teacher, distillation_weight)
        self.distillation_loss = PixelDistillationLoss(temperature)

    def loss(self, inputs: Tensor, data_samples: Sequence[DataSample]) -> dict[str, Tensor]:
        """Return ``loss_classification``, times 1 − λ − β, and ``loss_distillation``, times λ, of
        images ``(B, C, H, W)``."""
        self.load_teacher()
        features = self.extract_feat(inputs)
        losses = self.head.loss(features, data_samples)
        # The name 'loss' is that of the sum of all terms in the log.
        losses['loss_classification'] = self.weigh_labels(losses.pop('loss'))
        student, teacher = self.head(features), self.teacher(inputs)
        # An image is a map of one pixel, and every one counts.
        counted = torch.zeros(len(inputs), 1, 1, device=inputs.device)
        losses['loss_distillation'] = self.distillation_weight * self.distillation_loss(
            student[..., None, None], teacher[..., None, None], counted)
        return losses
