"""Cross-entropy with class weights, averaged over the pixels that count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError


def with_background(logits: Tensor) -> Tensor:
    """Add the logit 0 of the background to a single channel ``(B, 1, H, W)``, that of a sigmoid."""
    return F.pad(logits, (0, 0, 0, 0, 1, 0)) if logits.shape[1] == 1 else logits


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """Weighted mean of the cross-entropy over all pixels that are not ignored.

    mmsegmentation 1.2's ``CrossEntropyLoss`` fails if class weights meet an ignored pixel, and by
    default divides by the number of all pixels. One channel of logits is that of a sigmoid.

    Args:
        class_weight: One weight for each class, such as ``bhvit-seg check-dataset`` prints.
            Defaults to None: equal weights.
        loss_weight, loss_name: Factor and logged name of the loss.
    """

    def __init__(self, class_weight: Sequence[float] | None = None, loss_weight: float = 1.0,
                 loss_name: str = 'loss_ce') -> None:
        super().__init__()
        self.class_weight = None if class_weight is None else list(class_weight)
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None,
                ignore_index: int = 255, reduction_override: str | None = None, **kwargs) -> Tensor:
        """Compute the loss of logits ``(B, classes, H, W)``; 0 if no pixel counts.

        Args:
            label, weight: Class ids, and a factor for each pixel, ``(B, H, W)``.
            reduction_override: ``'none'``: weighted loss of each pixel ``(B, H, W)``, for mmseg's
                pixel sampler; ``'sum'``: their sum; ``'mean'`` or None: their weighted mean.
        """
        cls_score = with_background(cls_score)
        classes = cls_score.shape[1]
        class_weight = cls_score.new_tensor(
            [1.] * classes if self.class_weight is None else self.class_weight)
        if len(class_weight) != classes:
            raise UserError(f'class_weight of {self.loss_name} has {len(class_weight)} values '
                            f'for {classes} classes: give one for each')
        if reduction_override not in (None, 'none', 'mean', 'sum'):
            raise UserError(f'reduction_override of WeightedCrossEntropyLoss is '
                            f"{reduction_override!r}: expected 'none', 'mean' or 'sum'")
        losses = F.cross_entropy(cls_score, label, class_weight, ignore_index=ignore_index,
                                 reduction='none')
        counted = label != ignore_index
        total = class_weight[torch.where(counted, label, 0)] * counted
        if weight is not None:
            losses, total = losses * weight, total * weight
        if reduction_override == 'none':
            return self.loss_weight * losses
        if reduction_override == 'sum':
            return self.loss_weight * losses.sum()
        return self.loss_weight * losses.sum() / total.sum().clamp(min=1e-6)
