"""Prediction of image files to label maps and overlays; needs no torch or OpenMMLab packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from bhvit_seg.datasets.image_io import write_labels
from bhvit_seg.datasets.lidar import find_raster
from bhvit_seg.errors import (
    UserError,
    explain_interrupt,
    first_line,
    sentence_of,
    shortened,
)
from bhvit_seg.fileio import refuse_inputs, write_atomically
from bhvit_seg.inference.blending import Blender, class_opacity
from bhvit_seg.inference.inputs import find_images
from bhvit_seg.inference.predictor import LoadedImage, Predictor
from bhvit_seg.inference.record import RECORD, Job, choose_jobs, list_jobs
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.windows import lay_grid
from bhvit_seg.progress import WorkProgress

OVERLAP = 0.25
# Pixels of the largest image that is predicted in one piece. In BHViT all windows attend to all
# pooled tokens, so that time and memory grow with the square of the pixels: one piece takes 0.6
# times as long as overlapping windows at 1024 x 1024 pixels, 1.2 times at this size
# (BHViT-Tiny on one core), and more beyond.
MAX_WHOLE = 2048 * 2048


@dataclass
class PredictionReport:
    """Outcome for each image; ``notes`` are for the user."""

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)  # already predicted
    failed: dict[Path, str] = field(default_factory=dict)  # with the reason
    notes: list[str] = field(default_factory=list)


def predict_files(inputs: Sequence[str | Path], source: ModelSource, out: str | Path,
                  lidar: str | Path | None = None, opacity: float = 0.5, overlay: bool = True,
                  overwrite: bool = False, window: int | None = None, whole: bool = False
                  ) -> PredictionReport:
    """Predict images into ``out/labels`` (8-bit PNGs of class ids) and ``out/overlays``.

    Existing predictions of the same files, model and options are kept, so that an interrupted run
    can be continued; others are a UserError. An image that fails does not stop the others.

    Args:
        inputs: Images, folders or glob patterns.
        lidar: Folder of LiDAR rasters with the images' paths below it.
        opacity: Weight of the class colours in overlays, 0 to 1; the class ``background`` has none.
        overlay: Whether to write overlays.
        overwrite: Predict again what exists, and replace other files.
        window: Side in pixels of windows for every larger image. By default images of more than
            :data:`MAX_WHOLE` pixels use windows of the training crop, unless the config itself
            does.
        whole: Predict all images in one piece.
    """
    check_choices(opacity, window, whole)
    out, shown = Path(out), opacity if overlay else None
    names = find_images(inputs, out)
    model = source.load(windows=window is not None)
    if model.reads_lidar and lidar is None:
        raise UserError('the model reads camera and LiDAR: give the folder of the rasters with '
                        '--lidar')
    lidar = lidar if model.reads_lidar else None
    jobs = list_jobs(names, out, lidar, {
        'weights': source.weights, 'model': model.digest, 'windows': 'whole' if whole else window,
        'opacity': shown})
    rasters = [job.identity['lidar']['path'] for job in jobs if job.identity['lidar']]
    written = [path for job in jobs for path in (job.labels, job.overlay) if path is not None]
    refuse_inputs([out / RECORD, *written], [*source.files, *names, *rasters], '--out')
    report = PredictionReport()
    todo = choose_jobs(out, jobs, overwrite)
    left = {job.name for job in todo}
    report.skipped = [job.image for job in jobs if job.name not in left]
    in_windows = []
    with explain_interrupt(lambda: (
            f'{len(report.written)} of {len(todo)} images are predicted in {out}; the same command '
            'continues')), WorkProgress('predicting', len(todo), 'images') as progress:
        for job in todo:
            progress.add(1)
            try:
                image = model.load(
                    job.image, None if lidar is None else find_raster(lidar, job.name))
                labels, sides = label(model, image, window, whole)
                write_prediction(job, image, labels, model, overwrite)
            except Exception as error:
                # An error in one image must not stop the others.
                sentence = sentence_of(error) or f'{type(error).__name__}: {first_line(error)}'
                report.failed[job.image] = (
                    sentence if str(job.image) in sentence else f'{job.image}: {sentence}')
                continue
            report.written.append(job.image)
            if sides is not None and window is None:
                in_windows.append(str(job.image))
    if in_windows:
        report.notes.append(
            f'{shortened(in_windows, 1)} of more than {MAX_WHOLE:,} pixels predicted in '
            f'overlapping windows of {model.window[0]}x{model.window[1]}, as `bhvit-seg '
            'predict-raster` does; --whole takes images in one piece, --window N sets the side')
    return report


def check_choices(opacity: float, window: int | None, whole: bool) -> None:
    if not 0 <= opacity <= 1:
        raise UserError(f'--opacity is {opacity}, but it has to be between 0 and 1')
    if window is not None and (whole or window < 1):
        raise UserError(f'--window is {window}: give a number of pixels of at least 1, and not '
                        '--whole as well')


def label(model: Predictor, image: LoadedImage, window: int | None, whole: bool
          ) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return the class ids ``(H, W)`` of an image, and its windows or None for one piece."""
    sides = choose_windows(model, image, window, whole)
    return (model.predict(image) if sides is None else
            predict_in_windows(model, image, sides)), sides


def choose_windows(model: Predictor, image: LoadedImage, window: int | None, whole: bool
                   ) -> tuple[int, int] | None:
    """Return height and width of the windows for an image; None for one piece."""
    height, width = image.pixels.shape[:2]
    if whole:
        return None
    if window is not None:
        return (window, window) if max(height, width) > window else None
    if height * width <= MAX_WHOLE or model.slides or model.cell is None:
        return None
    return model.window


def predict_in_windows(model: Predictor, image: LoadedImage, window: tuple[int, int]) -> np.ndarray:
    """Return the class ids of an image, blended from windows as for a raster of its pixels."""
    pixels = image.pixels
    height, width = pixels.shape[:2]
    grid = lay_grid((height, width), window, OVERLAP, model.cell)
    pixels = np.pad(pixels, ((0, -height % model.cell), (0, -width % model.cell), (0, 0)), 'edge')
    blender = Blender(grid, len(model.classes), (0, grid.cells_high), (0, grid.cells_wide))
    for i in range(len(grid.tops)):
        for first in range(0, len(grid.lefts), model.batch):
            columns = range(first, min(first + model.batch, len(grid.lefts)))
            windows = [grid.window_at(i, j) for j in columns]
            scores = model.scores(np.stack([
                pixels[at.top:at.bottom, at.left:at.right] for at in windows]))
            for j, values in zip(columns, scores):
                blender.add(i, j, values)
    labels = model.label(blender.take(grid.cells_high))[:height, :width]
    if labels.shape == image.size:
        return labels
    rows, columns = (np.arange(new) * old // new for new, old in zip(image.size, labels.shape))
    return labels[rows[:, None], columns]


def write_prediction(job: Job, image: LoadedImage, labels: np.ndarray, model: Predictor,
                     overwrite: bool) -> None:
    """Write the files of a job that are missing, or all."""
    if overwrite or not job.labels.exists():
        write_labels(job.labels, labels, model.palette)
    if job.overlay is not None:
        overlay = draw_overlay(image.picture, labels, model, job.identity['opacity'])
        with write_atomically(job.overlay) as partial:
            Image.fromarray(overlay).save(partial)


def draw_overlay(image: np.ndarray, labels: np.ndarray, model: Predictor, opacity: float
                 ) -> np.ndarray:
    """Return an image ``(H, W, C)``, red first, blended with the colours of its labels, as ``(H, W,
    3)`` uint8; the class ``background`` has none.

    It shows the first three channels, or the first as grey; values of other types than 8 bits are
    scaled from their 2nd to their 98th percentile.
    """
    image = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, 2)
    if image.dtype != np.uint8:
        low, high = np.percentile(image, (2, 98))
        image = (255 * ((image - low) / max(high - low, 1e-12)).clip(0, 1)).astype(np.uint8)
    ids = np.arange(len(model.classes))
    weights = class_opacity(ids, dict(enumerate(model.classes)), opacity)[:, None]
    # What each value of a channel becomes under each class: arithmetic on each pixel takes three
    # times as long.
    overlay, rows = np.empty_like(image), labels.astype(np.int32) * 256
    for channel, colours in enumerate(np.asarray(model.palette, np.float64)[ids].T):
        blends = np.rint((1 - weights) * np.arange(256) + weights * colours[:, None])
        overlay[..., channel] = blends.astype(np.uint8).ravel()[rows + image[..., channel]]
    return overlay
