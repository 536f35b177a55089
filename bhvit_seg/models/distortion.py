"""Distortions of the student's images; its teacher sees the originals."""

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError


@MODELS.register_module()
class StrongDistortion(nn.Module):
    """Random gain, offset, desaturation, blur, noise and erased rectangles of normalised images.

    Random numbers are drawn on the CPU, so that a seed determines them on every device. Geometry is
    unchanged, so the teacher's predictions stay valid for each pixel.

    Args:
        gain: Each channel is multiplied by ``1 ± gain``, apart from a common factor of that range.
        offset: All channels are shifted by ``± offset`` standard deviations.
        grey: Probability of a random desaturation.
        blur: Probability of a 3×3 mean.
        noise: Largest standard deviation of the noise.
        hidden: Largest fraction of the sides that is erased to the mean colour, 0.
    """

    def __init__(self, gain: float = 0.3, offset: float = 0.3, grey: float = 0.5,
                 blur: float = 0.3, noise: float = 0.15, hidden: float = 0.3) -> None:
        super().__init__()
        if min(offset, noise) < 0 or not all(0 <= part <= 1 for part in (gain, grey, blur, hidden)):
            raise UserError(f'StrongDistortion got gain={gain}, offset={offset}, grey={grey}, '
                            f'blur={blur}, noise={noise}, hidden={hidden}: give numbers from 0, '
                            'all but offset and noise at most 1')
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
