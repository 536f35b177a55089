"""From the last feature rows to labels at the image's size; enlarged logits are never written out.

Enlarging bilinearly is a product with a banded matrix along each axis. Done band by band, the
logits of a band stay in cache until their largest is found; at 150 classes this is three to six
times as fast as resizing all of them and then looking for the largest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import Form, double, to_map

ROW_BANDS, COLUMN_BANDS = 16, 8
# With fewer classes than this a pixel's logits do not fill a vector.
FEW_CLASSES = 16


def enlargement(length: int, target: int, align_corners: bool) -> Tensor:
    """Matrix ``(target, length)`` that resizes a line bilinearly, in float64."""
    unit = torch.eye(length, dtype=torch.float64).view(1, length, 1, length)
    line = F.interpolate(unit, (1, target), mode='bilinear', align_corners=align_corners)
    return line[0, :, 0].T.contiguous()


class Labels(nn.Module):
    """Classifier, enlargement and argmax (the lowest class wins a tie).

    Args:
        classifier: The head's 1×1 convolution.
        size: Height and width of the head's map.
        target: Height and width of the image.
        align_corners: How to enlarge.
        form: How to write it.
    """

    def __init__(self, classifier: nn.Conv2d, size: tuple[int, int], target: tuple[int, int],
                 align_corners: bool, form: Form) -> None:
        super().__init__()
        self.size, self.target, self.align_corners = size, target, align_corners
        self.classes, self.whole = classifier.out_channels, form.whole
        self.planar = form.planar or self.classes < FEW_CLASSES
        self.register_buffer('weight', double(classifier.weight).flatten(1))
        self.register_buffer('bias', double(classifier.bias))
        self.ranges = []
        for axis, count in enumerate((ROW_BANDS, COLUMN_BANDS)):
            matrix = enlargement(size[axis], target[axis], align_corners)
            ranges = []
            for i, band in enumerate(matrix.tensor_split(min(count, target[axis]))):
                used = band.abs().sum(0).nonzero().flatten()
                start, end = int(used[0]), int(used[-1]) + 1
                band = band[:, start:end]
                self.register_buffer(f'band{axis}_{i}',
                                     (band.T if axis and self.planar else band).contiguous())
                ranges.append((f'band{axis}_{i}', start, end))
            self.ranges.append(ranges)

    def logits(self, rows: Tensor) -> Tensor:
        """Map rows ``(H · W, C)`` to logits ``(1, classes, H, W)``."""
        return torch.addmm(self.bias.unsqueeze(1), self.weight, rows.T).view(1, -1, *self.size)

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows ``(H · W, C)`` to labels ``(height, width)``, uint8."""
        if self.whole:
            logits = to_map(F.linear(rows, self.weight, self.bias), *self.size)
            enlarged = F.interpolate(logits, self.target, mode='bilinear',
                                     align_corners=self.align_corners)
            return enlarged.argmax(1)[0].to(torch.uint8)
        if self.planar:
            return self.enlarge(self.logits(rows)[0])
        return self.enlarge(F.linear(rows, self.weight, self.bias).view(*self.size, -1))

    def enlarge(self, logits: Tensor) -> Tensor:
        """Map logits, ``(classes, H, W)`` if planar, else ``(H, W, classes)``, to labels."""
        lines = logits if self.planar else logits.flatten(1)
        labels = []
        for name, start, end in self.ranges[0]:
            band = getattr(self, name)
            if self.planar:
                band = band @ lines[:, start:end]
                parts = [(band[:, :, first:last] @ getattr(self, part)).argmax(0)
                         for part, first, last in self.ranges[1]]
            else:
                band = (band @ lines[start:end]).view(-1, self.size[1], self.classes)
                parts = [(getattr(self, part) @ band[:, first:last]).argmax(2)
                         for part, first, last in self.ranges[1]]
            labels.append(torch.cat(parts, 1))
        return torch.cat(labels).to(torch.uint8)


def center_classes(classifier: nn.Conv2d, logits: Tensor) -> None:
    """Make every class of a network of random weights likely.

    Random features have large means, so that one class would win everywhere, and labels would
    agree however wrong an export is.

    Args:
        classifier: Its bias and weight are changed.
        logits: What it gives now, ``(1, classes, H, W)``.
    """
    deviation, mean = torch.std_mean(logits[0].flatten(1), 1)
    bias = torch.zeros_like(mean) if classifier.bias is None else classifier.bias
    classifier.weight.data /= deviation.view(-1, 1, 1, 1)
    classifier.bias.data = (bias - mean) / deviation
