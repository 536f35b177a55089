"""Report of a data set check: problems, class frequencies and weights, channel statistics."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

ENET_OFFSET = 1.02  # ENet (arXiv 1606.02147, section 5.2), which keeps weights between 1.4 and 50


@dataclass
class DatasetReport:
    split: str
    classes: tuple[str, ...]
    pixels: np.ndarray  # (num_classes,) int64, labelled pixels of each class
    images_with_class: np.ndarray  # (num_classes,) int64
    num_images: int = 0
    ignored: int = 0  # pixels
    mean: list[float] = field(default_factory=list)  # of channels, red, green, blue first
    std: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # sentences; to be fixed before training
    warnings: list[str] = field(default_factory=list)  # what may be intended

    def summary(self, max_problems: int | None = 20) -> str:
        """Everything as text, at most ``max_problems`` problems of it (``None``: all)."""
        lines = [f'{self.split}: {self.num_images} images, {len(self.classes)} classes, '
                 f'{len(self.problems)} problem(s)']
        lines += [f'  problem: {problem}' for problem in self.problems[:max_problems]]
        if max_problems is not None and len(self.problems) > max_problems:
            lines.append(f'  ... and {len(self.problems) - max_problems} more')
        lines += [f'  warning: {warning}' for warning in self.warnings]
        if labelled := int(self.pixels.sum()):
            width = max(map(len, self.classes))
            lines.append(f'  {"class":<{width + 5}} {"pixels":>8} {"images":>8}')
            lines += [f'  {label:>3}  {name:<{width}} {100 * pixels / labelled:>7.2f}% {images:>8}'
                      for label, (name, pixels, images) in enumerate(zip(
                          self.classes, self.pixels, self.images_with_class))]
            lines += [
                f'  ignored: {100 * self.ignored / (labelled + self.ignored):.2f}% of all pixels',
                'class weights (ENet: 1 / ln(1.02 + frequency), scaled so that the mean over '
                'pixels is 1), to paste into loss_decode:',
                f'  class_weight={_rounded(enet_class_weights(self.pixels), 4)}']
        if self.mean:
            lines += ['channels (red, green, blue first), to paste into data_preprocessor:',
                      f'  mean={_rounded(self.mean, 3)}, std={_rounded(self.std, 3)}']
        return '\n'.join(lines)


def enet_class_weights(pixels: np.ndarray) -> list[float]:
    """Return ``1 / ln(1.02 + frequency)`` for each class (1 without pixels), scaled to a mean over
    pixels of 1, which keeps the size of the loss."""
    pixels = np.asarray(pixels, np.float64)
    if not pixels.any():
        return [1.0] * len(pixels)
    frequency = pixels / pixels.sum()
    weights = 1 / np.log(ENET_OFFSET + frequency)
    return np.where(pixels > 0, weights / (weights * frequency).sum(), 1.0).tolist()


def _rounded(values: list[float], digits: int) -> list[float]:
    return [round(value, digits) for value in values]
