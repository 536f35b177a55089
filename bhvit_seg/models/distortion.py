"""Distortions of the images that a student gets while its teacher sees them as they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError


@MODELS.register_module()
class StrongDistortion(nn.Module):
    """Random gain, offset, loss of colour, blur, noise and hidden rectangles of normalised images.

    Each image draws its own, on the CPU and in one order, so that a seed decides them on every
    device. No pixel moves: what the teacher says about a pixel holds for the student.

    Args:
        gain (float): Each channel is multiplied by ``1 ± gain``, apart from a common factor of the
            same range.
        offset (float): All channels are raised by ``± offset`` standard deviations.
        grey (float): Probability that an image loses a random part of its colour.
        blur (float): Probability of a 3×3 mean.
        noise (float): Greatest standard deviation of the noise.
        hidden (float): Greatest share of the image's sides that a hidden rectangle takes; it has
            the mean colour, 0.

    Raises:
        UserError: An argument is negative, or one that is a fraction exceeds 1.
    """

    def __init__(self, gain: float = 0.3, offset: float = 0.3, grey: float = 0.5,
                 blur: float = 0.3, noise: float = 0.15, hidden: float = 0.3) -> None:
        super().__init__()
        for name, value, most in (('gain', gain, 1), ('offset', offset, None), ('grey', grey, 1),
                                  ('blur', blur, 1), ('noise', noise, None),
                                  ('hidden', hidden, 1)):
            if value < 0 or most is not None and value > most:
                raise UserError(f'StrongDistortion got {name}={value}: give a number from 0 '
                                + ('on' if most is None else 'to 1'))
        self.gain, self.offset, self.grey = gain, offset, grey
        self.blur, self.noise, self.hidden = blur, noise, hidden

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return distorted copies of images ``(B, C, H, W)``."""
        batch, channels = images.shape[:2]
        draws = torch.rand(batch, channels + 10).to(images)
        common, offset, grey, amount, blur, noise, top, left, tall, wide = (
            draws[:, index].view(-1, 1, 1, 1) for index in range(channels, channels + 10))
        gains = 1 + self.gain * (2 * draws[:, :channels, None, None] - 1)
        out = images * gains * (1 + self.gain * (2 * common - 1))
        out = out + self.offset * (2 * offset - 1)
        amount = amount * (grey < self.grey)
        out = out + amount * (out.mean(1, keepdim=True) - out)
        out = torch.where(blur < self.blur, F.avg_pool2d(out, 3, 1, 1, count_include_pad=False),
                          out)
        out = out + self.noise * noise * torch.randn(images.shape).to(images)
        inside = True
        for dim, start, share in ((2, top, tall), (3, left, wide)):
            size = images.shape[dim]
            at = torch.arange(size, device=images.device).view(1, 1, -1, *[1] * (3 - dim))
            first = start * size
            inside = inside & (at >= first) & (at < first + self.hidden * share * size)
        return out.masked_fill(inside, 0)
