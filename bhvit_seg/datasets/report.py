"""What a check of a data set found: problems, class frequencies and weights, channel statistics."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# ENet (arXiv 1606.02147, section 5.2), which keeps weights between 1.4 and 50.
ENET_OFFSET = 1.02


@dataclass
class DatasetReport:
    """The outcome of a check.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        classes: Class names, by label.
        pixels: (num_classes,) int64, labelled pixels of each class.
        images_with_class: (num_classes,) int64, images in which each class occurs.
        num_images: Number of images.
        ignored: Pixels that are ignored.
        mean: Mean of each channel, red, green, blue first, as ``data_preprocessor`` wants it.
        std: Standard deviation of each channel.
        problems: What has to be fixed before training, a sentence each.
        warnings: What may be intended.
    """

    split: str
    classes: tuple[str, ...]
    pixels: np.ndarray
    images_with_class: np.ndarray
    num_images: int = 0
    ignored: int = 0
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def first_problem(self) -> str:
        """One sentence: the first problem and the number of others."""
        others = len(self.problems) - 1
        return self.problems[0] + (f' ({others} more problem(s))' if others else '')

    def summary(self, max_problems: int | None = 20) -> str:
        """Everything as text, at most ``max_problems`` problems of it (``None``: all)."""
        lines = [f'{self.split}: {self.num_images} images, {len(self.classes)} classes, '
                 f'{len(self.problems)} problem(s)']
        lines += [f'  problem: {problem}' for problem in self.problems[:max_problems]]
        if max_problems is not None and len(self.problems) > max_problems:
            lines.append(f'  ... and {len(self.problems) - max_problems} more')
        lines += [f'  warning: {warning}' for warning in self.warnings]
        labelled = int(self.pixels.sum())
        if labelled:
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
    """Return a weight for each class from its number of pixels.

    ``1 / ln(1.02 + frequency)`` as in ENet, bounded also for classes that hardly occur, then
    scaled so that the mean over all pixels is 1: the loss, and with it the learning rate, keeps
    its size. A class without pixels has the weight 1, which nothing uses.
    """
    pixels = np.asarray(pixels, np.float64)
    if not pixels.any():
        return [1.0] * len(pixels)
    frequency = pixels / pixels.sum()
    weights = 1 / np.log(ENET_OFFSET + frequency)
    return np.where(pixels > 0, weights / (weights * frequency).sum(), 1.0).tolist()


def shortened(names: list[str], shown: int = 10) -> str:
    """The first names of a list, and how many follow."""
    more = len(names) - shown
    return ', '.join(names[:shown]) + (f' and {more} more' if more > 0 else '')


def _rounded(values: list[float], digits: int) -> list[float]:
    return [round(value, digits) for value in values]
