"""Distillation losses on class probabilities and feature maps: means over pixels not ignored."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from .cross_entropy import with_background

# Pixels without a label, which a teacher may label; losses on labels ignore them. All losses ignore
# the head's ignore_index (no data, padding).
UNLABELLED = 254


def require_equal(what: str, student: Tensor, teacher: Tensor) -> None:
    """Raise a UserError unless maps ``(B, C, h, w)`` have the same channels and sizes."""
    if student.shape[1:] != teacher.shape[1:]:
        mine, theirs = ('×'.join(map(str, maps.shape[1:])) for maps in (student, teacher))
        raise UserError(f'{what} of the teacher are {theirs} (channels × height × width), those of '
                        f'the student {mine}: set model.teacher to one of the same classes and '
                        'size, and feature_loss to maps of one stride with their channels')


@MODELS.register_module()
class PixelDistillationLoss(nn.Module):
    """``T² · KL(p_teacher ‖ p_student)`` at each pixel, ``p = softmax(logits / T)``.

    ``T²`` keeps the size of the gradient when T, the ``temperature``, changes. One channel of
    logits is that of a sigmoid.
    """

    def __init__(self, temperature: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f'PixelDistillationLoss got temperature={temperature}: it must be '
                            'positive')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor,
                ignore_index: int = 255) -> Tensor:
        """Compute the loss of logits ``(B, classes, H, W)`` in float32; 0 if no pixel counts."""
        student, teacher = with_background(student), with_background(teacher.detach())
        require_equal('logits', student, teacher)
        counted = label != ignore_index
        # (pixels that count, classes)
        student_log, teacher_log = (
            (logits.permute(0, 2, 3, 1)[counted].float() / self.temperature).log_softmax(1)
            for logits in (student, teacher))
        total = F.kl_div(student_log, teacher_log, reduction='sum', log_target=True)
        return self.loss_weight * self.temperature**2 * total / counted.sum().clamp(min=1)


@MODELS.register_module()
class FeatureDistillationLoss(nn.Module):
    """Squared distance of feature vectors that are normalised to length 1.

    A cell of a map is weighted by its fraction of pixels that are not ignored. A learned 1×1
    convolution adapts the student's channels where the teacher has another number of them.

    Args:
        in_index: The maps to compare, finest first.
        student_channels, teacher_channels: Channels of each.
    """

    def __init__(self, in_index: Sequence[int] = (3,), student_channels: Sequence[int] = (512,),
                 teacher_channels: Sequence[int] = (512,), loss_weight: float = 1.0) -> None:
        super().__init__()
        if not len(in_index) == len(student_channels) == len(teacher_channels) > 0:
            raise UserError(
                f'FeatureDistillationLoss got in_index={list(in_index)}, student_channels='
                f'{list(student_channels)}, teacher_channels={list(teacher_channels)}: give one '
                'number of channels for each map')
        self.in_index = tuple(in_index)
        self.loss_weight = loss_weight
        self.adapters = nn.ModuleList(
            nn.Identity() if mine == theirs else nn.Conv2d(mine, theirs, 1)
            for mine, theirs in zip(student_channels, teacher_channels))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], label: Tensor,
                ignore_index: int = 255) -> Tensor:
        """Compute the mean over the maps ``(B, C, h, w)`` of ``in_index``, in float32."""
        counted = (label != ignore_index).float().unsqueeze(1)
        if max(self.in_index) >= min(len(student), len(teacher)):
            raise UserError(f'feature_loss.in_index is {list(self.in_index)}, but the student has '
                            f'{len(student)} maps and the teacher {len(teacher)}, from 0')
        terms = []
        for place, index in enumerate(self.in_index):
            mine = F.normalize(self.adapters[place](student[index]).float())
            theirs = F.normalize(teacher[index].detach().float())
            require_equal(f'features {index}', mine, theirs)
            share = F.adaptive_avg_pool2d(counted, mine.shape[2:]).squeeze(1)
            distance = (mine - theirs).square().sum(1)
            terms.append((distance * share).sum() / share.sum().clamp(min=1e-6))
        return self.loss_weight * torch.stack(terms).mean()
