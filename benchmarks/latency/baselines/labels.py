"""From the last feature rows to labels at the image's size, without writing upsampled logits.

Bilinear upsampling is a product with a banded matrix along each axis. Done band by band, the logits
of a band stay in cache until their largest is found; at 150 classes this is three to six times as
fast as resizing all of them first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROW_BANDS, COLUMN_BANDS = 16, 8


def resize_matrix(length: int, target: int, align_corners: bool) -> Tensor:
    """Matrix ``(target, length)`` that resizes a line bilinearly, in float64."""
    unit = torch.eye(length, dtype=torch.float64).view(1, length, 1, length)
    line = F.interpolate(unit, (1, target), mode='bilinear', align_corners=align_corners)
    return line[0, :, 0].T.contiguous()


class Labels(nn.Module):
    """Classifier, upsampling and argmax (the lowest class wins a tie).

    Args:
        classifier: The head's 1×1 convolution.
        size: Height and width of the head's map.
        target: Height and width of the image.
        align_corners: How to upsample.
    """

    def __init__(self, classifier: nn.Conv2d, size: tuple[int, int], target: tuple[int, int],
                 align_corners: bool) -> None:
        super().__init__()
        self.size = size
        self.register_buffer('weight', classifier.weight.detach().double().flatten(1))
        self.register_buffer('bias', classifier.bias.detach().double())
        self.ranges = []
        for axis, count in enumerate((ROW_BANDS, COLUMN_BANDS)):
            matrix = resize_matrix(size[axis], target[axis], align_corners)
            ranges = []
            for i, band in enumerate(matrix.tensor_split(min(count, target[axis]))):
                used = band.abs().sum(0).nonzero().flatten()
                start, end = int(used[0]), int(used[-1]) + 1
                band = band[:, start:end]
                self.register_buffer(f'band{axis}_{i}', (band.T if axis else band).contiguous())
                ranges.append((f'band{axis}_{i}', start, end))
            self.ranges.append(ranges)

    def logits(self, rows: Tensor) -> Tensor:
        """Map rows ``(H · W, C)`` to logits ``(1, classes, H, W)``."""
        return torch.addmm(self.bias.unsqueeze(1), self.weight, rows.T).view(1, -1, *self.size)

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows ``(H · W, C)`` to labels ``(height, width)``, uint8."""
        return self.upsample(self.logits(rows)[0])

    def upsample(self, logits: Tensor) -> Tensor:
        """Map logits ``(classes, H, W)`` to labels ``(height, width)``, uint8."""
        labels = []
        for name, start, end in self.ranges[0]:
            band = getattr(self, name) @ logits[:, start:end]
            labels.append(torch.cat([
                (band[:, :, first:last] @ getattr(self, part)).argmax(0)
                for part, first, last in self.ranges[1]], 1))
        return torch.cat(labels).to(torch.uint8)


def center_classes(classifier: nn.Conv2d, logits: Tensor) -> None:
    """Make every class of a network of random weights likely.

    Random features have large means: one class would win everywhere, and labels would agree even
    with a wrong export.

    Args:
        classifier: Its bias and weight are changed.
        logits: Its present output, ``(1, classes, H, W)``.
    """
    deviation, mean = torch.std_mean(logits[0].flatten(1), 1)
    bias = torch.zeros_like(mean) if classifier.bias is None else classifier.bias
    classifier.weight.data /= deviation.view(-1, 1, 1, 1)
    classifier.bias.data = (bias - mean) / deviation
