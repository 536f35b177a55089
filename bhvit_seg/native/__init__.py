"""The packed model: a trained segmentor as bits, run by the engine in ``csrc``.

Imports NumPy alone, so that a device that has neither torch nor OpenMMLab's packages predicts.
``bhvit_seg.native.export`` makes packed models and needs both.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.extras import engine_failure, reinstall_line

from .file_format import read_packed

__all__ = ['PackedSegmentor', 'instruction_sets', 'processor_limits', 'usable_cores']

PATCH = 4
MAX_THREADS = 256


def _load_engine() -> ModuleType:
    try:
        from . import _engine
    except ImportError as error:
        reason = engine_failure() or str(error)
        raise UserError(
            f'the engine of packed models is not built for this Python ({reason}): install a C++ '
            f'compiler (Debian, Ubuntu: apt-get install g++) and run {reinstall_line()}'
        ) from error
    return _engine


def instruction_sets() -> list[str]:
    """Return the names of the instruction sets that this processor can run, best first.

    Raises:
        UserError: The engine is not built.
    """
    return list(_load_engine().instruction_sets())


def processor_limits(isa: str) -> tuple[float, float]:
    """Measure what one core does at best in loops on registers.

    Args:
        isa: One of :func:`instruction_sets`.

    Returns:
        Binary and float products (multiply and accumulate) a second.

    Raises:
        UserError: The engine is not built, or the processor lacks the instruction set.
    """
    engine = _load_engine()
    try:
        return engine.limits(isa)
    except engine.Error as error:
        raise UserError(str(error)) from error


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class PackedSegmentor:
    """A packed model, ready to label images.

    One object handles one image at a time; calls from several threads wait for each other, and
    several objects run side by side. The interpreter lock is released during a call.

    Args:
        path: A file that ``tools/export_packed.py`` wrote.
        threads: How many threads compute, at most 256. Defaults to the cores that this process
            may use.
        isa: One of :func:`instruction_sets`; by default that of the environment variable
            ``BHVIT_ISA``, else the best.

    Attributes:
        meta (dict): ``name``, ``classes``, ``palette`` (RGB), ``window`` (height and width of the
            training crop in pixels), ``channels``, ``channel_order`` and more.

    Raises:
        UserError: The file is missing, damaged or of another version, an argument is out of its
            range, or the engine is not built.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None,
                 isa: str | None = None) -> None:
        engine = _load_engine()
        threads = min(usable_cores(), MAX_THREADS) if threads is None else threads
        if not isinstance(threads, (int, np.integer)) or not 1 <= threads <= MAX_THREADS:
            raise UserError(f'threads={threads!r}: expected a number from 1 to {MAX_THREADS}')
        self.meta: dict[str, Any] = read_packed(path).meta
        self._error = engine.Error
        self._engine = self._run(engine.Engine, os.fsdecode(path), int(threads), isa or '')

    @property
    def instruction_set(self) -> str:
        """The name of the instruction set in use."""
        return self._engine.isa

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self._engine.threads

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the class of every pixel.

        Args:
            image: ``(H, W, C)`` uint8 or floating-point, red first, at least 4×4 pixels and in
                the values that the model was trained on (normalisation is part of the model); or
                a batch ``(B, H, W, C)``.

        Returns:
            Class ids ``(H, W)`` or ``(B, H, W)``, uint8.

        Raises:
            UserError: The image has another number of channels or another dtype, or is too small.
        """
        batch = self._check(image)
        labels = np.empty(batch.shape[:3], np.uint8)
        for one, out in zip(batch, labels):
            out[:] = self._run(self._engine.predict, one)
        return labels[0] if image.ndim == 3 else labels

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Return the classifier's scores, a quarter of the image's size.

        Args:
            image: As in :meth:`predict`.

        Returns:
            ``(classes, ⌈H/4⌉, ⌈W/4⌉)`` or ``(B, classes, ⌈H/4⌉, ⌈W/4⌉)``, float32.

        Raises:
            UserError: As in :meth:`predict`.
        """
        batch = self._check(image)
        height, width = (-(-side // PATCH) for side in batch.shape[1:3])
        logits = np.empty((len(batch), self._engine.classes, height, width), np.float32)
        for one, out in zip(batch, logits):
            out[:] = self._run(self._engine.logits, one)
        return logits[0] if image.ndim == 3 else logits

    def label(self, logits: np.ndarray) -> np.ndarray:
        """Return the highest class of every pixel, between logits stretched bilinearly.

        Args:
            logits: ``(classes, h, w)``, such as :meth:`logits` of several images blended.

        Returns:
            Class ids ``(4 h, 4 w)``, uint8: what :meth:`predict` makes of the logits of an image
            of that size.

        Raises:
            UserError: The logits have other dimensions.
        """
        return self._run(self._engine.label, np.ascontiguousarray(logits, np.float32))

    def profile(self, image: np.ndarray) -> list[tuple[str, float]]:
        """Predict an image and return the seconds of each layer, by kind, in order.

        Args:
            image: ``(H, W, C)``, as in :meth:`predict`.

        Raises:
            UserError: As in :meth:`predict`.
        """
        return self._run(self._engine.profile, self._check(image)[0])

    def _check(self, image: np.ndarray) -> np.ndarray:
        """Return the image as a batch of what the engine takes."""
        if not isinstance(image, np.ndarray):
            raise UserError(f'the image is a {type(image).__name__}: give a NumPy array (H, W, C)')
        if image.dtype != np.uint8 and image.dtype.kind != 'f':
            raise UserError(f'the image has the dtype {image.dtype}: give uint8, or '
                            'image.astype(numpy.float32)')
        channels = self._engine.in_channels
        if image.ndim not in (3, 4):
            raise UserError(f'the image has the shape {image.shape}: expected (H, W, {channels}), '
                            f'or (B, H, W, {channels}) for a batch')
        if image.shape[-1] != channels:
            order = ', '.join(map(str, self.meta.get('channel_order') or ()))
            raise UserError(f'the image has {image.shape[-1]} channels (shape {image.shape}), but '
                            f'the model takes {channels}{f" ({order})" if order else ""} in the '
                            'last dimension')
        if min(image.shape[-3:-1]) < PATCH:
            raise UserError(f'the image is {image.shape[-3]}×{image.shape[-2]} pixels (height × '
                            f'width), smaller than one {PATCH}×{PATCH} patch; give a larger image')
        batch = image if image.ndim == 4 else image[None]
        return np.ascontiguousarray(batch, np.uint8 if image.dtype == np.uint8 else np.float32)

    def _run(self, function, *args):
        try:
            return function(*args)
        except self._error as error:
            raise UserError(str(error)) from error

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({self.meta.get("name")!r}, threads={self.threads}, '
                f'isa={self.instruction_set!r})')
