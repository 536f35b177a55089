"""Compares a packed model with the simulated network that it was folded from.

Rounding moves a value across a threshold now and then, so torch's float32 labels differ from its
float64 labels in a few pixels. A packed model may differ in twice as many.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from torch import nn

from bhvit_seg.datasets.image_io import swap_red_and_blue

from . import PackedSegmentor
from .file_format import may_be_narrow, write_packed

# A single bit that flips early changes this fraction of an image's labels.
ALLOWANCE = 0.001


@dataclass(frozen=True)
class Verification:
    """Labels that differ from the simulation in float64."""

    images: int
    pixels: int
    packed: int  # differing labels of the packed model
    torch_float32: int  # and of the simulation in float32

    @property
    def allowed(self) -> int:
        """Differing labels that rounding explains."""
        return 2 * self.torch_float32 + int(ALLOWANCE * self.pixels)

    @property
    def spare(self) -> int:
        """Labels that may change for the packed model to pass in any case."""
        return self.allowed - self.packed

    @property
    def passed(self) -> bool:
        return self.packed <= self.allowed


@torch.no_grad()
def torch_labels(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """Return the labels ``(H, W)`` of an image ``(H, W, C)``, red first, by the simulation."""
    blue_first = torch.from_numpy(swap_red_and_blue(image).transpose(2, 0, 1).copy())
    inputs = model.data_preprocessor({'inputs': [blue_first]})['inputs']
    inputs = torch.stack(list(inputs)).to(next(model.parameters()).dtype)
    size = tuple(inputs.shape[2:])
    logits = model.whole_inference(inputs, [dict(img_shape=size, ori_shape=size, pad_shape=size)])
    logits = logits[..., :image.shape[0], :image.shape[1]]
    if logits.shape[1] == 1:
        return (logits.sigmoid() > model.decode_head.threshold)[0, 0].numpy().astype(np.uint8)
    return logits.argmax(1)[0].numpy().astype(np.uint8)


def packed_labels(tensors: Mapping[str, np.ndarray], images: Sequence[np.ndarray],
                  threads: int | None = None) -> list[np.ndarray]:
    """Return the labels ``(H, W)`` of images by the engine with these tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'model.bhv'
        write_packed(path, tensors, {})
        segmentor = PackedSegmentor(path, threads)
        return [segmentor.predict(image) for image in images]


def count_changes(labels: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> int:
    return sum(int((a != b).sum()) for a, b in zip(labels, others))


def compare_with_simulation(model: nn.Module, labels: Sequence[np.ndarray],
                            images: Sequence[np.ndarray]) -> Verification:
    """Compare labels that a packed model gives images ``(H, W, C)`` with the simulation's."""
    model = copy.deepcopy(model).cpu().float().eval()
    rounded = [torch_labels(model, image) for image in images]
    exact = [torch_labels(model.double(), image) for image in images]
    return Verification(len(images), sum(map(np.size, exact)), count_changes(labels, exact),
                        count_changes(rounded, exact))


def narrow(tensors: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the tensors with some in 16 bits; values beyond their range become infinite."""
    with np.errstate(over='ignore'):
        return {**tensors, **{name: tensors[name].astype(np.float16) for name in names}}


def narrow_where_harmless(tensors: Mapping[str, np.ndarray], images: Sequence[np.ndarray],
                          labels: Sequence[np.ndarray], accepted: int,
                          threads: int | None = None
                          ) -> tuple[dict[str, np.ndarray], dict[str, int], int]:
    """Store tensors in 16 bits, from the largest on, while at most ``accepted`` labels change.

    Returns:
        The tensors, how many labels would change with each one that is kept in 32 bits, and how
        many change.
    """
    def changes(names: list[str]) -> int:
        trial = narrow(tensors, names)
        if not all(np.isfinite(trial[name]).all() for name in names):
            return sum(map(np.size, labels))
        return count_changes(packed_labels(trial, images, threads), labels)

    names = sorted(filter(may_be_narrow, tensors), key=lambda name: -tensors[name].size)
    changed = changes(names)
    if changed <= accepted:
        return narrow(tensors, names), {}, changed
    harmless: list[str] = []
    kept, changed = {}, 0
    for name in names:
        with_it = changes([*harmless, name])
        if with_it > accepted:
            kept[name] = with_it
        else:
            harmless.append(name)
            changed = with_it
    return narrow(tensors, harmless), kept, changed
