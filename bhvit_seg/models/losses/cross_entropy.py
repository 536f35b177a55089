"""Cross-entropy with class weights, averaged over the pixels that count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from .logits import with_background


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """Weighted mean of the cross-entropy over all pixels that are not ignored.

    mmsegmentation 1.2's ``CrossEntropyLoss`` fails as soon as class weights meet an ignored
    pixel, and by default divides by the number of all pixels, ignored ones included. One channel of
    logits is that of a sigmoid: background has the logit 0.

    Args:
        class_weight (Sequence[float], optional): One weight for each class, such as
            ``bhvit-seg check-dataset`` prints. Defaults to None: all have the same weight.
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
                ignore_index: int = 255, reduction_override: str | None = None,
                **kwargs) -> Tensor:
        """Compute the loss.

        Args:
            cls_score: Logits ``(B, classes, H, W)``; one channel stands for two classes.
            label: Class ids ``(B, H, W)``.
            weight: A factor for each pixel, ``(B, H, W)``.
            ignore_index: The label of pixels that do not count.
            reduction_override: ``'none'`` for the weighted loss of each pixel ``(B, H, W)``, as
                mmseg's pixel sampler asks for, ``'sum'`` for their sum, ``'mean'`` or None for
                their weighted mean.

        Returns:
            A scalar, 0 if no pixel counts; or a map.

        Raises:
            UserError: There are more or fewer class weights than classes, or the reduction is
                unknown.
        """
        cls_score = with_background(cls_score)
        classes = cls_score.shape[1]
        if self.class_weight is None:
            class_weight = cls_score.new_ones(classes)
        elif len(self.class_weight) == classes:
            class_weight = cls_score.new_tensor(self.class_weight)
        else:
            raise UserError(f'class_weight of {self.loss_name} has {len(self.class_weight)} values '
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
