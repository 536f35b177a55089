"""From a trained segmentor to a packed model: ``bhvit-seg export``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
from torch import nn

from bhvit_seg import __version__
from bhvit_seg.datasets.lidar import find_raster
from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import make_output_folder, refuse_inputs
from bhvit_seg.native.export import fold_segmentor, uninitialized_quantizers
from bhvit_seg.native.file_format import may_be_narrow, write_packed
from bhvit_seg.native.packed_meta import describe, find_differences
from bhvit_seg.native.unpacking import UnpackedSegmentor
from bhvit_seg.native.verify import (
    Verification,
    compare_with_simulation,
    count_changes,
    narrow,
    narrow_where_harmless,
    packed_labels,
)
from bhvit_seg.training.trained import TrainedSegmentor

PRECISIONS = ('auto', '16', '32')
N_SCENES = 4
# One bit that flips in the last stage reaches a thousand pixels: much of a small scene.
SCENE_SIZE = (256, 256)
MAX_IMAGES = 32  # simulating in float64 takes seconds an image
# The part of the network that a tensor is of, by its name.
PARTS = {
    'binary weights': r'.*\.bits',
    'position embeddings': r'.*\.position',
    'stem': r'stem\.weight',
    'full-precision downsampling': r'down.*\.weight',
    'classifier': r'head\.classifier\..*',
    'channel parameters': '.*',
}


@dataclass
class ExportReport:
    path: Path
    parts: Mapping[str, int]  # bytes of each part of the file
    float32_bytes: int  # of backbone and head in the checkpoint, as float32
    verification: Verification | None = None
    narrowed: list[str] = field(default_factory=list)  # tensors stored in 16 bits
    kept: dict[str, int] = field(default_factory=dict)  # by tensor: labels 16 bits would change
    changed: int = 0  # labels that 16 bits changed
    warnings: list[str] = field(default_factory=list)  # sentences

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def summary(self) -> str:
        width = max(map(len, self.parts))
        lines = [f'{part:{width}}  {size:>12,} bytes' for part, size in self.parts.items()]
        lines.append(f'{"total":{width}}  {self.total:>12,} bytes, {self.total / 1e6:.2f} MB: '
                     f'{self.float32_bytes / self.total:.1f} times smaller than '
                     f'{self.float32_bytes / 1e6:.1f} MB of float32')
        check = self.verification
        if self.narrowed:
            lines.append(f'in 16 bits: {", ".join(self.narrowed)}')
        if self.kept:
            lines.append(f'in 32 bits, because 16 would change more than {check.spare} labels of '
                         'the verification: ' + ', '.join(
                             f'{name} ({count})' for name, count in self.kept.items()))
        lines.append('not verified' if check is None else (
            f'verified on {check.images} images, {check.pixels:,} pixels: {check.packed} '
            'labels are not those of the simulation in float64 (torch in float32: '
            f'{check.torch_float32}; accepted: {check.allowed})'))
        if self.changed:
            lines.append(f'16 bits changed {self.changed} labels, '
                         f'{100 * self.changed / check.pixels:.3f} %')
        return '\n'.join([*lines, *(f'warning: {warning}' for warning in self.warnings)])


def pack_model(model: nn.Module, out: str | Path, meta: Mapping[str, Any] | None = None,
               images: Sequence[np.ndarray] = (), precision: str = 'auto',
               threads: int | None = None) -> ExportReport:
    """Write the packed model of a segmentor that is in memory.

    Args:
        meta: Meta data of the file.
        images: ``(H, W, C)``, red first, to verify with. Without images nothing is verified.
        precision: Bits of full-precision parts: ``'16'``, ``'32'``, or ``'auto'``: 16 where the
            labels of ``images`` stay within what :class:`Verification` allows.
        threads: Threads of the engine.

    Raises:
        UserError: The model cannot be packed, ``precision`` is unknown, the engine is missing for
            the verification, the verification failed, or ``out`` cannot be written; no file is
            written then.
    """
    if precision not in PRECISIONS:
        raise UserError(f'precision is {precision!r}: expected one of {", ".join(PRECISIONS)}')
    out = Path(out)
    if out.is_dir():
        raise UserError(f'{out} is a folder: give the name of the file to write')
    make_output_folder(out.parent, 'of the packed model')
    tensors = stored = fold_segmentor(model)
    check, kept, changed = None, {}, 0
    if precision == '16':
        stored = narrow(tensors, filter(may_be_narrow, tensors))
        for name, array in stored.items():
            if not np.isfinite(array).all():
                raise UserError(f'{name} has values that 16 bits cannot hold: leave out '
                                '--precision 16')
    if len(images):
        labels = packed_labels(tensors, images, threads)
        check = compare_with_simulation(model, labels, images)
        if not check.passed:
            raise UserError(
                f'the packed model was not written, because {check.packed} of {check.pixels} '
                f'labels are not those of the simulation, where rounding explains {check.allowed}: '
                'please report this with the config')
        if precision == 'auto':
            stored, kept, changed = narrow_where_harmless(tensors, images, labels, check.spare,
                                                          threads)
        elif precision == '16':
            changed = count_changes(packed_labels(stored, images, threads), labels)
    narrowed = [name for name, array in stored.items() if array.dtype == np.float16]
    stored = write_packed(out, stored, {
        **(meta or {}), 'created_by': f'bhvit_seg {__version__}',
        'precision': dict.fromkeys(narrowed, 'float16'),
        'verification': {**asdict(check), 'changed_by_16_bits': changed} if check else None})
    parts: Counter[str] = Counter()
    for name, array in stored.items():
        parts[next(part for part in PARTS if re.fullmatch(PARTS[part], name))] += array.nbytes
    parts['names and meta data'] = out.stat().st_size - sum(parts.values())
    float32_bytes = sum(4 * tensor.numel() for part in (model.backbone, model.decode_head)
                        for tensor in part.state_dict().values() if tensor.is_floating_point())
    unset = uninitialized_quantizers(model)
    return ExportReport(out, parts, float32_bytes, check, narrowed, kept, changed, [
        f'{unset} attention quantizers have never been trained: labels of this model mean nothing'
    ] if unset else [])


def export_packed(config: str | Path, checkpoint: str | Path, out: str | Path,
                  images: Mapping[Path, Path] | Sequence[Path] = (),
                  lidar: str | Path | None = None, precision: str = 'auto', verify: bool = True,
                  threads: int | None = None, cfg_options: dict[str, Any] | None = None
                  ) -> ExportReport:
    """Pack a trained segmentor into one file, and verify that it labels as torch does.

    Args:
        config, checkpoint, cfg_options: See :class:`~bhvit_seg.training.trained.TrainedSegmentor`.
        images: Image files to verify with, of which at most 32 are used, each with its path below
            ``lidar`` without suffix (default: its name). By default four synthetic scenes as large
            as the training window, or 256×256.
        lidar: Folder with a raster for each image, for models that read them.
        verify: Without it ``'auto'`` stores everything in 32 bits.
        out, precision, threads: See :func:`pack_model`.
    """
    refuse_inputs([out], [config, checkpoint, *images], 'name')
    trained = TrainedSegmentor(config, checkpoint, 'cpu', cfg_options)
    meta = describe(trained)
    pictures = []
    if verify and images:
        pictures = read_images(trained, images, lidar)
    elif verify:
        pictures = synthetic_images(meta['channels'],
                                    np.maximum(meta['window'] or SCENE_SIZE, SCENE_SIZE))
    report = pack_model(trained.model, out, meta, pictures, precision, threads)
    report.warnings += find_differences(trained)
    return report


def read_images(model: TrainedSegmentor | UnpackedSegmentor,
                images: Mapping[Path, Path] | Sequence[Path],
                lidar: str | Path | None) -> list[np.ndarray]:
    """Read images as the test pipeline does: ``(H, W, C)``, red first."""
    if model.reads_lidar and lidar is None:
        raise UserError('the model reads camera and LiDAR: give the folder of the rasters with '
                        '--lidar')
    paths, pictures = list(images), []
    count = min(len(paths), MAX_IMAGES)
    for path in [paths[i * len(paths) // count] for i in range(count)]:
        name = images[path] if isinstance(images, Mapping) else Path(path).stem
        raster = find_raster(lidar, name) if model.reads_lidar else None
        pictures.append(model.read(path, raster))
    return pictures


def synthetic_images(channels: int, size: Sequence[int], count: int = N_SCENES) -> list[np.ndarray]:
    """Return scenes ``(H, W, channels)``: camera, then the height above ground, repeated."""
    images = []
    for scene in (generate_scene(seed, tuple(size)) for seed in range(count)):
        height = np.repeat(scene.height[..., None], max(channels - 3, 0), 2)
        images.append(np.ascontiguousarray(scene.image[..., :channels]) if channels <= 3 else
                      np.concatenate([scene.image.astype(np.float32), height], 2))
    return images
