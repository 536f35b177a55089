"""From a segmentor, trained or packed, to an ONNX file: ``bhvit-seg export-onnx``."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from torch import nn

from bhvit_seg import __version__
from bhvit_seg.errors import UserError, first_line
from bhvit_seg.fileio import make_output_folder, refuse_inputs, write_atomically
from bhvit_seg.native.onnx_network import OnnxSegmentor
from bhvit_seg.native.packed_meta import describe
from bhvit_seg.native.packing import read_images, synthetic_images
from bhvit_seg.native.unpacking import UnpackedSegmentor
from bhvit_seg.native.verify import Verification, compare_with_simulation
from bhvit_seg.shipped import find_model
from bhvit_seg.training.trained import TrainedSegmentor

OPSET = 18  # with IR version 8, which onnxruntime reads from 1.14 on
STRIDE, SMALLEST = 32, 64  # of sides, pixels
TILE = 512  # pixels, where the config has no training crop
OVERLAP = 25  # of tiles, per cent
TRIALS = 2  # synthetic images to verify with
IMAGE, OUTPUT = 'image', 'probabilities'


@dataclass
class OnnxReport:
    path: Path
    metadata: Mapping[str, str]
    verification: Verification | None

    def summary(self) -> str:
        check = self.verification
        return '\n'.join([*(f'{name}: {value}' for name, value in self.metadata.items()), (
            'not verified' if check is None else
            f'verified by onnxruntime on {check.images} images, {check.pixels:,} pixels: '
            f'{check.packed} labels are not those of torch in float64 (torch in float32: '
            f'{check.torch_float32}; accepted: {check.allowed})')])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence exporters, which warn about things that are intended here."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


def write_onnx(module: nn.Module, image: torch.Tensor, path: str | Path,
               metadata: Mapping[str, str] | None = None, output: str = OUTPUT,
               dynamic: Mapping[str, Mapping[int, str]] | None = None) -> None:
    """Trace a module with one input and one output into a file.

    Args:
        image: An input; where ``dynamic`` names no axis, all inputs have its size.
        metadata: The file's ``metadata_props``.
        dynamic: Names of axes of ``'image'`` and of ``output``.
    """
    import onnx

    with quiet(), torch.no_grad():
        torch.onnx.export(module, (image,), str(path), dynamo=False, opset_version=OPSET,
                          input_names=[IMAGE], output_names=[output], dynamic_axes=dynamic)
    model = onnx.load(path)
    model.producer_name, model.producer_version = 'bhvit_seg', __version__
    onnx.helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def readable_metadata(meta: Mapping[str, Any], size: int) -> dict[str, str]:
    """Return what Deepness (QGIS) and GeoDeep (WebODM) read, each value as JSON.

    Args:
        meta: Of :func:`~bhvit_seg.native.packed_meta.describe`.
        size: Side of a tile, pixels.
    """
    channels, distance = meta['channels'], meta['ground_sampling_distance']
    values = {
        'model_type': 'Segmentor',
        'class_names': {str(index): name for index, name in enumerate(meta['classes'])},
        **({} if distance is None else {'resolution': 100 * distance}),
        'tile_size': size, 'tiles_size': size,  # the code of Deepness, and its documents
        'tiles_overlap': OVERLAP,
        # The network normalises, since GeoDeep does not.
        'standardization_mean': [0.0] * channels, 'standardization_std': [1.0] * channels,
        'seg_thresh': 0.0,  # the likeliest class, however unlikely
        'seg_small_segment': 0,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def export_onnx(config: str | Path, checkpoint: str | Path | None, out: str | Path,
                size: int | None = None, dynamic: bool = False,
                images: Mapping[Path, Path] | Sequence[Path] = (),
                lidar: str | Path | None = None, verify: bool = True,
                cfg_options: dict[str, Any] | None = None) -> OnnxReport:
    """Write a segmentor as ONNX, and verify by onnxruntime that it labels as torch does.

    The input is ``(1, channels, height, width)``, float32, red first, divided by 255; the output
    ``(1, classes, height, width)``, the probabilities of the classes.

    Args:
        config, checkpoint, cfg_options: See :class:`~bhvit_seg.training.trained.TrainedSegmentor`.
            With a ``checkpoint`` of None ``config`` is a packed model, by path or name.
        size: Side of images in pixels, a multiple of 32. Defaults to the training crop.
        dynamic: Whether images of all sizes are taken whose sides are multiples of 32.
        images, lidar: See :func:`~bhvit_seg.native.packing.export_packed`; cut or mirrored to the
            size. By default synthetic scenes.
        out: The file.

    Raises:
        UserError: The model cannot be exported, or the file labels otherwise than torch; no file is
            written then.
    """
    if checkpoint is None:
        config = find_model(config)
        if cfg_options:
            raise UserError(f'--cfg-options is of configs and {config} is a packed model: leave it '
                            'out, or give CONFIG and CHECKPOINT')
    refuse_inputs([out], [config, *([] if checkpoint is None else [checkpoint]), *images], 'name')
    out = Path(out)
    if out.is_dir():
        raise UserError(f'{out} is a folder: give the name of the file to write')
    if size is not None and (size % STRIDE or size < SMALLEST):
        raise UserError(f'the size is {size}: expected a multiple of {STRIDE} from {SMALLEST} on')
    import onnx  # noqa: F401  before the model is loaded
    if verify:
        import onnxruntime  # noqa: F401

    make_output_folder(out.parent, 'of the ONNX file')
    if checkpoint is None:
        source = UnpackedSegmentor(config)
        meta = source.meta
    else:
        source = TrainedSegmentor(config, checkpoint, 'cpu', cfg_options)
        meta = describe(source)
    if size is None:
        size = max(SMALLEST, -(-max(meta['window'] or [TILE]) // STRIDE) * STRIDE)
    sizes = [(size, size), *[(size + STRIDE, size + 3 * STRIDE)] * dynamic]
    pictures = [] if not verify else read_images(source, images, lidar) if images else (
        synthetic_images(meta['channels'], sizes[0], TRIALS))
    pictures = [fit(image, sizes[i % len(sizes)]) for i, image in enumerate(pictures)]
    metadata = readable_metadata(meta, size)
    check = None
    with write_atomically(out) as partial:
        axes = {2: 'height', 3: 'width'}
        try:
            # Position embeddings are square, so a map that is not has them resized in the trace.
            image = torch.rand(1, meta['channels'], size, size + STRIDE * dynamic)
            write_onnx(OnnxSegmentor(source.model, dynamic), image, partial, metadata,
                       dynamic={IMAGE: axes, OUTPUT: axes} if dynamic else None)
            labels = runtime_labels(partial, pictures)
        except Exception as error:  # exporters and runtimes fail in their own ways
            if isinstance(error, (UserError, ImportError, OSError)):
                raise
            raise UserError(
                f'the model of {config} cannot be written as ONNX'
                f'{" for images of any size" if dynamic else ""}: {type(error).__name__}: '
                f'{first_line(error)}' + ('; leave --dynamic out' if dynamic else '')) from error
        if pictures:
            check = compare_with_simulation(source.model, labels, pictures)
            if not check.passed:
                raise UserError(
                    f'{out} was not written, because {check.packed} of {check.pixels} labels by '
                    f'onnxruntime are not those of torch, where rounding explains {check.allowed}: '
                    + ('leave --dynamic out' if dynamic else 'please report this with the config'))
    return OnnxReport(out, metadata, check)


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut an image ``(H, W, C)`` to a size, or mirror it at its lower and right border."""
    missing = [(0, max(0, side - length)) for side, length in zip(size, image.shape)]
    return np.pad(image, [*missing, (0, 0)], 'symmetric')[:size[0], :size[1]]


def runtime_labels(path: str | Path, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return labels ``(H, W)`` of images ``(H, W, C)``, red first, by onnxruntime."""
    if not images:
        return []
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    session = onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider'])
    return [session.run(None, {IMAGE: (image.transpose(2, 0, 1)[None] / np.float32(255)).astype(
        np.float32)})[0][0].argmax(0).astype(np.uint8) for image in images]
