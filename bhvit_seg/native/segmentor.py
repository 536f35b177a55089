"""A packed model that labels images: the Python interface of the engine."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Callable

import numpy as np

from bhvit_seg.errors import UserError

from .engine import check_isa, load_engine, open_file, run, usable_cores
from .meta import parse_meta

PATCH = 4
MAX_THREADS = 256
MAX_CLASSES = 256


class PackedSegmentor:
    """A packed model, ready to label images.

    Calls from several threads on one object wait for each other; several objects run in parallel.
    The interpreter lock is released during a call, and an object may be used on both sides of a
    ``fork``. Pickles and copies hold the absolute path, ``threads`` and ``isa``, and read the file
    again, which must not have changed.

    Args:
        path: A file of ``bhvit-seg export``.
        threads: Number of threads, 1 to 256. Defaults to the cores that this process may use.
        isa: One of :func:`instruction_sets`. Defaults to the environment variable ``BHVIT_ISA``,
            else the best.

    Attributes:
        meta (dict): ``name``, ``classes``, ``palette`` (RGB), ``window`` (height and width of the
            training crop in pixels), ``channels``, ``channel_order`` and more.
        digest (str): SHA-256 of the file in hexadecimal.
        divisor (int): Images are mirrored at two borders up to sides that are multiples of it.
        mean (numpy.ndarray): Mean of each channel in the training images, ``(C,)`` float32: a
            neutral value for pixels without data.

    Raises:
        UserError: The file is missing, damaged, of another version or inconsistent, an argument is
            out of its range, or the engine is not built.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None,
                 isa: str | None = None) -> None:
        engine = load_engine()
        if threads is not None and not (isinstance(threads, (int, np.integer))
                                        and 1 <= threads <= MAX_THREADS):
            raise UserError(f'threads={threads!r}: expected a number from 1 to {MAX_THREADS}')
        isa_name, file, name = check_isa(isa), open_file(path), os.fsdecode(path)
        self._path = os.path.abspath(name)
        self._options = None if threads is None else int(threads), isa
        self._engine = run(engine.Engine, file, int(threads or min(usable_cores(), MAX_THREADS)),
                           isa_name)
        self.digest = hashlib.sha256(file).hexdigest()
        self.mean = np.array(self._engine.mean, np.float32)
        self.divisor: int = (self._engine.architecture[23:] or [1])[0]
        self.meta: dict[str, Any] = parse_meta(
            file.meta, name, self._engine.classes, self._engine.in_channels,
            self._engine.align_corners)

    def __reduce__(self) -> tuple:
        return _load_again, (type(self), self._path, *self._options, self.digest)

    @property
    def instruction_set(self) -> str:
        return self._engine.isa

    @property
    def threads(self) -> int:
        return self._engine.threads

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the class ids ``(H, W)`` or ``(B, H, W)``, uint8, of images in one piece.

        Every attention window attends to one pooled token of each window, so time and memory grow
        faster than the number of pixels: BHViT-Tiny takes 51 s and 2.8 GB for 6000×6000 pixels, but
        2.2 s in 36 pieces. Use ``bhvit-seg predict`` or ``predict-raster`` for large images.

        Args:
            image: ``(H, W, C)`` or ``(B, H, W, C)``, uint8 or floating-point, red first, at least
                4×4 pixels, not normalised, in the value range of the training images. Values are
                finite: fill pixels without data, for example with :attr:`mean`.

        Raises:
            UserError: Wrong dtype or number of channels, too few pixels, too many for the memory,
                or values that are NaN, infinite or beyond 10⁹ standard deviations.
        """
        return self._run(self._engine.predict, image, np.uint8)

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Return scores ``(classes, ⌈H/4⌉, ⌈W/4⌉)`` or ``(B, ...)`` float32; see
        :meth:`predict`."""
        return self._run(self._engine.logits, image, np.float32)

    def _run(self, function: Callable, image: np.ndarray, dtype: type) -> np.ndarray:
        """Call a function of the engine for an image, or each of a batch, which may be empty."""
        batch = self._check(image)
        height, width = shape = batch.shape[1:3]
        if dtype == np.float32:
            shape = self._engine.classes, -(-height // PATCH), -(-width // PATCH)
        results = np.empty((len(batch), *shape), dtype)
        for one, out in zip(batch, results):
            out[:] = run(function, one)
        return results[0] if image.ndim == 3 else results

    def label(self, logits: np.ndarray) -> np.ndarray:
        """Return class ids ``(4 h, 4 w)``, uint8, of upsampled finite logits ``(classes, h,
        w)``."""
        _check_array(logits, 'logits', 'classes, h, w')
        if logits.dtype.kind not in 'fiu':
            raise UserError(f'the logits have the dtype {logits.dtype}: give numbers, such as '
                            'float32')
        if logits.ndim != 3 or 0 in logits.shape or len(logits) > MAX_CLASSES:
            raise UserError(f'the logits have the shape {logits.shape}: expected (classes, h, w) '
                            f'with 1 to {MAX_CLASSES} classes, and h and w from 1')
        logits = _contiguous(logits, np.float32)
        if not np.isfinite(logits).all():
            raise UserError('logits are NaN or infinite: give finite ones')
        return run(self._engine.label, logits)

    def profile(self, image: np.ndarray) -> list[tuple[str, float]]:
        """Predict one image ``(H, W, C)``; return kind and seconds of each layer, in order."""
        batch = self._check(image)
        if image.ndim != 3:
            raise UserError(f'the image has the shape {image.shape}: a profile is of one image '
                            f'(H, W, {self._engine.in_channels})')
        return run(self._engine.profile, batch[0])

    def _check(self, image: np.ndarray) -> np.ndarray:
        """Return the image as a contiguous batch."""
        _check_array(image, 'image', 'H, W, C')
        if image.dtype != np.uint8 and image.dtype.kind != 'f':
            raise UserError(f'the image has the dtype {image.dtype}: give uint8, or '
                            'image.astype(numpy.float32)')
        channels = self._engine.in_channels
        if image.ndim not in (3, 4):
            raise UserError(f'the image has the shape {image.shape}: expected (H, W, {channels}), '
                            f'or (B, H, W, {channels}) for a batch')
        if image.shape[-1] != channels:
            order = ', '.join(self.meta.get('channel_order') or ())
            raise UserError(f'the image has {image.shape[-1]} channels (shape {image.shape}), but '
                            f'the model takes {channels}{f" ({order})" if order else ""} in the '
                            'last dimension')
        if min(image.shape[-3:-1]) < PATCH:
            raise UserError(f'the image is {image.shape[-3]}×{image.shape[-2]} pixels (height × '
                            f'width), smaller than one {PATCH}×{PATCH} patch; give a larger image')
        batch = image if image.ndim == 4 else image[None]
        return _contiguous(batch, np.uint8 if image.dtype == np.uint8 else np.float32)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({self.meta.get("name")!r}, threads={self.threads}, '
                f'isa={self.instruction_set!r})')


def _load_again(kind: type[PackedSegmentor], path: str, threads: int | None, isa: str | None,
                digest: str) -> PackedSegmentor:
    """Load a pickled :class:`PackedSegmentor`; refuse a file that has changed."""
    segmentor = kind(path, threads, isa)
    if segmentor.digest != digest:
        raise UserError(f'the packed model {path} has changed since the object was pickled or '
                        f'copied (SHA-256 {segmentor.digest} instead of {digest}): load it with '
                        'PackedSegmentor(path)')
    return segmentor


def _contiguous(array: np.ndarray, dtype: type) -> np.ndarray:
    # what float32 cannot hold becomes infinite, which the engine reports with its place
    with np.errstate(over='ignore'):
        return np.ascontiguousarray(array, dtype)


def _check_array(value: Any, name: str, shape: str) -> None:
    if not isinstance(value, np.ndarray):
        raise UserError(f'{name}: expected a NumPy array ({shape}), got a {type(value).__name__}')
