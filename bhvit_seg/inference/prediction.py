"""What every prediction of image files does, whatever computes the labels.

Needs neither torch nor OpenMMLab's packages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Protocol

import numpy as np

from bhvit_seg.datasets.image_io import LIDAR_SUFFIXES, read_image
from bhvit_seg.errors import UserError, find_user_error, first_line
from bhvit_seg.fileio import make_output_folder, write_json
from bhvit_seg.inference.inputs import find_images
from bhvit_seg.inference.pictures import Palette, write_labels, write_overlay

RECORD = 'prediction.json'


class ImagePredictor(Protocol):
    """What computes the labels of an image file.

    Attributes:
        palette: A colour (RGB) for each class.
        reads_lidar: Whether it wants a LiDAR raster with each image.
    """

    palette: Palette
    reads_lidar: bool

    def __call__(self, image: Path, lidar: Path | None = None) -> np.ndarray:
        """Return the class ids (H, W) of an image file."""


@dataclass
class PredictionReport:
    """What became of the images.

    Attributes:
        written: Images predicted now.
        skipped: Images whose predictions were there already.
        failed: A sentence for each image that could not be predicted.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def predict_files(inputs: Sequence[str | Path],
                  make_predictor: Callable[[], ImagePredictor],
                  weights: str | Path,
                  out: str | Path,
                  lidar: str | Path | None = None,
                  opacity: float = 0.5,
                  overlay: bool = True,
                  overwrite: bool = False) -> PredictionReport:
    """Predict images into ``out/labels`` and ``out/overlays``.

    Label maps are 8-bit PNGs whose values are the model's class ids. What is there already is
    kept, so a prediction that was interrupted goes on. An image that fails does not stop the
    others.

    Args:
        inputs: Images, folders or glob patterns.
        make_predictor: Called when images are found.
        weights: The file that the predictor's weights are from.
        out: The output folder.
        lidar: The folder with a raster for each image, of the same path below it; needed by
            models of camera and LiDAR.
        opacity: Share of the class colours in the overlays, 0 to 1.
        overlay: Write overlays.
        overwrite: Predict everything anew.

    Raises:
        UserError: Something given is wrong.
    """
    if not 0 <= opacity <= 1:
        raise UserError(f'--opacity is {opacity}, but it has to be between 0 and 1')
    names = find_images(inputs, out)
    predictor = make_predictor()
    if predictor.reads_lidar and lidar is None:
        raise UserError('the model reads camera and LiDAR: give the folder of the rasters with '
                        '--lidar')
    out = make_output_folder(out, '--out')
    check_record(out, weights, overwrite)
    report = PredictionReport()
    for image in with_progress(list(names)):
        labels_path = out / 'labels' / f'{names[image]}.png'
        overlay_path = out / 'overlays' / f'{names[image]}.png'
        wanted = [labels_path, overlay_path] if overlay else [labels_path]
        if not overwrite and all(path.exists() for path in wanted):
            report.skipped.append(image)
            continue
        try:
            # First of all: the overlay needs it, and a damaged file is noticed.
            picture = read_image(str(image), 'color', None)[..., ::-1]
            raster = None if lidar is None else find_raster(Path(lidar), names[image])
            labels = predictor(image, raster)
            write_labels(labels_path, labels, predictor.palette)
            if overlay:
                write_overlay(overlay_path, picture, labels, predictor.palette, opacity)
        except Exception as error:
            # Whatever is wrong with one image, the others are to be predicted.
            known = find_user_error(error)
            sentence = str(known) if known else f'{type(error).__name__}: {first_line(error)}'
            report.failed[image] = (
                sentence if str(image) in sentence else f'{image}: {sentence}')
        else:
            report.written.append(image)
    return report


def with_progress(images: list[Path]) -> Iterable[Path]:
    """Show a progress bar on a terminal, where rich is installed to draw it."""
    with contextlib.suppress(ImportError):
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        return track(images, 'predicting', console=console, disable=not console.is_terminal)
    return images


def find_raster(folder: Path, name: Path) -> Path:
    """Return the LiDAR raster of an image.

    Raises:
        UserError: There is none.
    """
    for suffix in LIDAR_SUFFIXES:
        raster = folder / f'{name}{suffix}'
        if raster.is_file():
            return raster
    raise UserError(f'no raster {folder / name} ({", ".join(LIDAR_SUFFIXES)}): every image needs '
                    'one of the same name in --lidar')


def check_record(out: Path, weights: str | Path, overwrite: bool) -> None:
    """Note in ``out`` which weights its predictions are of.

    Raises:
        UserError: They are of others, and would be taken for these.
    """
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    record = out / RECORD
    if record.is_file() and not overwrite:
        try:
            before = json.loads(record.read_text())
            before_digest, before_name = before['sha256'], before['checkpoint']
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{record} is damaged: give another --out, or --overwrite') from error
        if before_digest != digest:
            raise UserError(f'{out} holds predictions of {before_name}, not of {weights}: '
                            'give another --out, or --overwrite')
    write_json(record, {'checkpoint': str(weights), 'sha256': digest})
