"""Cross-entropy with class weights, averaged over the pixels that count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """Weighted mean of the cross-entropy over all pixels that are not ignored.

    mmsegmentation 1.2's ``CrossEntropyLoss`` fails as soon as class weights meet an ignored
    pixel, and by default divides by the number of all pixels, ignored ones included.

    Args:
        class_weight (Sequence[float], optional): One weight for each class, such as
            ``bhvit-seg check-dataset`` prints. Defaults to None: all count alike.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        loss_name (str): Its name in the log. Defaults to ``'loss_ce'``.
    """

    def __init__(self, class_weight: Sequence[float] | None = None, loss_weight: float = 1.0,
                 loss_name: str = 'loss_ce') -> None:
        super().__init__()
        self.class_weight = None if class_weight is None else list(class_weight)
        self.loss_weight = loss_weight
        self._loss_name = loss_name

    @property
    def loss_name(self) -> str:
        return self._loss_name

    def forward(self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None,
                ignore_index: int = 255, **kwargs) -> Tensor:
        """Compute the loss.

        Args:
            cls_score: Logits ``(B, classes, H, W)``.
            label: Class ids ``(B, H, W)``.
            weight: A factor for each pixel, ``(B, H, W)``.
            ignore_index: The label of pixels that do not count.

        Returns:
            A scalar; 0 if no pixel counts.

        Raises:
            ValueError: There are more or fewer class weights than classes.
        """
        classes = cls_score.shape[1]
        if self.class_weight is None:
            class_weight = cls_score.new_ones(classes)
        elif len(self.class_weight) == classes:
            class_weight = cls_score.new_tensor(self.class_weight)
        else:
            raise ValueError(f'class_weight has {len(self.class_weight)} values for {classes} '
                             'classes; give one for each.')
        losses = F.cross_entropy(cls_score, label, class_weight, ignore_index=ignore_index,
                                 reduction='none')
        counted = label != ignore_index
        total = class_weight[torch.where(counted, label, 0)] * counted
        if weight is not None:
            losses, total = losses * weight, total * weight
        return self.loss_weight * losses.sum() / total.sum().clamp(min=1e-6)
