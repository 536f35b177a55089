"""clDice, a loss that compares centre lines, so that gaps in thin roads weigh by their length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from .cross_entropy import with_background


def soft_skeleton(maps: Tensor, iterations: int) -> Tensor:
    """Reduce probability maps ``(B, C, H, W)`` to their centre lines, differentiably.

    An opening with a small cross and a square removes what is thin. What it removes from the map
    and its erosions is accumulated. ``iterations`` must be at least half the width of the widest
    road in pixels.
    """
    skeleton = torch.zeros_like(maps)
    for _ in range(iterations + 1):
        thin = F.relu(maps - F.max_pool2d(_erode(maps), 3, 1, 1))
        skeleton = skeleton + (1 - skeleton) * thin
        maps = _erode(maps)
    return skeleton


def _erode(maps: Tensor) -> Tensor:
    """Minimum over each pixel and its four neighbours; beyond the border nothing is lower."""
    vertical = F.max_pool2d(-maps, (3, 1), 1, (1, 0))
    horizontal = F.max_pool2d(-maps, (1, 3), 1, (0, 1))
    return -torch.maximum(vertical, horizontal)


@MODELS.register_module()
class CLDiceLoss(nn.Module):
    """``(1 − α) · (1 − Dice) + α · (1 − clDice)``, the mean over the thin classes.

    With P the probabilities and L the label of a class, and S their skeletons, clDice is the
    harmonic mean of ``Σ S(P)·L / Σ S(P)`` and ``Σ S(L)·P / Σ S(L)``. Sums run over the batch; P and
    L are 0 at ignored pixels. Use it beside a cross-entropy:
    ``loss_decode=[dict(type='WeightedCrossEntropyLoss', ...), dict(type='CLDiceLoss')]``.

    Args:
        classes: Ids of the thin classes.
        alpha: Weight of clDice, at most 0.5 in the paper, since skeletons ignore the width.
        iterations: Erosions; at least half the width of the widest road in pixels.
        smooth: Added to both sides of each ratio, in pixels.
        loss_weight, loss_name: Factor and logged name of the loss.
    """

    def __init__(self, classes: Sequence[int] = (1,), alpha: float = 0.5, iterations: int = 10,
                 smooth: float = 1.0, loss_weight: float = 1.0,
                 loss_name: str = 'loss_cldice') -> None:
        super().__init__()
        if not classes or min(classes) < 0 or not 0 <= alpha <= 1 or iterations < 1 or smooth <= 0:
            raise UserError(f'CLDiceLoss got classes={list(classes)}, alpha={alpha}, iterations='
                            f'{iterations}, smooth={smooth}: give at least one class, numbered '
                            'from 0, a share between 0 and 1, at least one iteration and a '
                            'positive number of pixels')
        self.classes, self.alpha = list(classes), alpha
        self.iterations, self.smooth = iterations, smooth
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None,
                ignore_index: int = 255, reduction_override: str | None = None, **kwargs) -> Tensor:
        """Compute the loss of logits ``(B, classes, H, W)``, in float32; 0 if no pixel counts.

        One channel is that of a sigmoid; ``weight`` has no effect, as skeletons have no loss per
        pixel. A UserError says that a class is missing, or that ``'none'`` is requested.
        """
        if reduction_override == 'none':
            raise UserError("CLDiceLoss compares whole maps and has no loss of each pixel, which "
                            "reduction_override='none' asks for: set thresh of OHEMPixelSampler, "
                            'such as 0.7, or leave the sampler out')
        scores = with_background(cls_score.float())
        if max(self.classes) >= scores.shape[1]:
            raise UserError(f'CLDiceLoss.classes is {self.classes}, but the head has '
                            f'{scores.shape[1]} classes (numbered from 0)')
        counted = (label != ignore_index).unsqueeze(1)
        probabilities = scores.softmax(1)[:, self.classes].where(counted, scores.new_zeros(()))
        ids = torch.tensor(self.classes, device=label.device).view(1, -1, 1, 1)
        truth = ((label.unsqueeze(1) == ids) & counted).float()

        overlap = self._ratio(2 * probabilities * truth, probabilities + truth)
        found, true = (soft_skeleton(maps, self.iterations) for maps in (probabilities, truth))
        precision = self._ratio(found * truth, found)
        recall = self._ratio(true * probabilities, true)
        centre = 2 * precision * recall / (precision + recall)
        loss = (1 - self.alpha) * (1 - overlap) + self.alpha * (1 - centre)
        return self.loss_weight * loss.mean()

    def _ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        return (part.sum((0, 2, 3)) + self.smooth) / (whole.sum((0, 2, 3)) + self.smooth)
