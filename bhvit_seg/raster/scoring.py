"""Scores a label raster, such as a predicted map, against another one, window by window."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.scores import score_areas, without_nan
from bhvit_seg.inference.windows import Window, cut_blocks
from bhvit_seg.progress import WorkProgress
from bhvit_seg.raster.opening import class_names, named_failure, open_raster

if TYPE_CHECKING:
    from rasterio import DatasetReader

WINDOW = (512, 4096)
IDS = 1 << 16  # ids in files lie below; any other is unknown
SAME_PLACE = 0.01  # in pixels, the largest distance at which rasters coincide


def score_raster(prediction: str | Path, labels: str | Path, classes: Sequence[str] | None = None,
                 ignore: int = 255, label_map: Mapping[int, int] | None = None,
                 ignore_nodata: bool = False, progress: bool = False) -> dict[str, Any]:
    """Score a predicted label raster against a raster of true labels, in bounded memory.

    Pixels without a label (``ignore``, nodata, masked) are not scored; labelled pixels without a
    prediction are wrong.

    Args:
        prediction, labels: Rasters of one band of class ids, of the same place and size.
        classes: Names of the classes 0, 1, ... Defaults to those in ``prediction``.
        ignore: The id in ``labels`` that means none.
        label_map: New ids of ids in ``labels``; ``ignore`` means none. It may map ``ignore`` and
            the nodata value to classes, too.
        ignore_nodata: Do not score pixels without a prediction.

    Returns:
        ``summary`` (aAcc, mIoU, mFscore, mAcc) and ``classes`` (IoU, F1, Precision, Recall by class
        name; None for a class that occurs nowhere) in per cent; ``confusion``, pixels of each
        labelled class (rows) by predicted class (columns), ``unpredicted`` and ``unlabelled``
        pixels; and the arguments.

    Raises:
        UserError: A raster cannot be read, they do not fit together, or have unknown ids.
    """
    with contextlib.ExitStack() as stack:
        predicted, labelled = (stack.enter_context(open_ids(path)) for path in (prediction, labels))
        check_same_place(predicted, labelled)
        names = read_names(predicted, classes)
        check_label_map(label_map or {}, len(names), ignore)
        readers = (ClassReader(labelled, len(names), ignore, label_map),
                   ClassReader(predicted, len(names)))
        # Pixels of each pair of label (rows) and prediction; the last ones are without a class.
        codes = len(names) + 1
        counts = np.zeros((codes, codes), np.int64)
        windows = cut_blocks(labelled.shape, WINDOW)
        bar = stack.enter_context(WorkProgress('scoring', len(windows))) if progress else None
        for window in windows:
            true, found = (reader.read(window) for reader in readers)
            counts += np.bincount((true * codes + found).ravel(),
                                  minlength=counts.size).reshape(counts.shape)
            if bar is not None:
                bar.add(1)
    confusion, unpredicted = counts[:-1, :-1], counts[:-1, -1]
    hits, found, true = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    if not ignore_nodata:
        true += unpredicted
    if not true.any():
        raise UserError(f'no pixel of {prediction} can be scored: in {labels} every one is '
                        f'nodata or {ignore}{" where it is predicted" if ignore_nodata else ""}; '
                        'give the label raster of this place')
    summary, scores = score_areas(hits, found + true - hits, found, true, names)
    return {
        'prediction': str(prediction), 'labels': str(labels), 'ignore': ignore,
        'label_map': {str(old): new for old, new in (label_map or {}).items()},
        'ignore_nodata': ignore_nodata,
        'summary': without_nan(summary),
        'classes': {name: without_nan(values) for name, values in scores.items()},
        'confusion': confusion.tolist(),
        'unpredicted': unpredicted.tolist(),
        'unlabelled': int(counts[-1].sum()),
    }


@contextlib.contextmanager
def open_ids(path: str | Path) -> Iterator[DatasetReader]:
    with open_raster(path, 'a label raster, as bhvit-seg predict-raster writes it') as dataset:
        if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in 'ui':
            raise UserError(
                f'{path} has {dataset.count} band{"s" * (dataset.count != 1)} of '
                f'{dataset.dtypes[0]}, but a label raster has one, of whole numbers: give class '
                'ids, not colours or probabilities')
        yield dataset


def check_same_place(predicted: DatasetReader, labelled: DatasetReader) -> None:
    """Raise a UserError unless two rasters coincide, as far as both are georeferenced."""
    if predicted.shape != labelled.shape:
        raise UserError(
            f'{labelled.name} has {labelled.height}x{labelled.width} pixels (height x width), '
            f'{predicted.name} {predicted.height}x{predicted.width}: cut or resample the labels to '
            'the pixels of the prediction')
    if predicted.crs and labelled.crs and predicted.crs != labelled.crs:
        there, here = (':'.join(crs.to_authority() or ['another coordinate system'])
                       for crs in (labelled.crs, predicted.crs))
        raise UserError(f'{labelled.name} is in {there}, {predicted.name} in {here}: warp the '
                        'labels to the pixels of the prediction')
    if predicted.transform.is_identity or labelled.transform.is_identity:
        return
    there, here = (np.reshape(dataset.transform, (3, 3)) for dataset in (labelled, predicted))
    height, width = predicted.shape
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    apart = np.abs(np.linalg.solve(here, there @ corners) - corners).max()
    if not apart < SAME_PLACE:
        raise UserError(
            f'{labelled.name} lies up to {apart:.4g} pixels beside {predicted.name}: warp the '
            'labels to the pixels of the prediction')


def read_names(dataset: DatasetReader, classes: Sequence[str] | None) -> list[str]:
    """Return the distinct names of the classes 0, 1, ...: given, or from the raster's tags."""
    names = dict(enumerate(classes)) if classes is not None else class_names(dataset)
    if classes is None and (not names or list(names) != list(range(len(names)))):
        raise UserError(f'{dataset.name} does not name its classes: give the names of the ids 0, '
                        '1, ... with --classes')
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice or not names:
        raise UserError(f'the classes are {", ".join(names.values()) or "none"}'
                        f'{f", {twice[0]} twice" if twice else ""}: give each its own name with '
                        '--classes')
    return list(names.values())


def check_label_map(label_map: Mapping[int, int], classes: int, ignore: int) -> None:
    """Raise a UserError where ids are mapped to others than those of classes and ``ignore``."""
    for old, new in label_map.items():
        if not 0 <= old < IDS or not (0 <= new < classes or new == ignore):
            raise UserError(f'--label-map {old}:{new} is out of range: give an id from 0 to '
                            f'{IDS - 1} and a class from 0 to {classes - 1}, or {ignore} for none')


class ClassReader:
    """Reads classes from 0, and ``classes`` where a raster has none; see :func:`score_raster`."""

    def __init__(self, dataset: DatasetReader, classes: int, ignore: int | None = None,
                 label_map: Mapping[int, int] | None = None) -> None:
        from rasterio.enums import MaskFlags

        label_map = label_map or {}
        self.dataset = dataset
        self.classes = classes
        self._hint = '' if ignore is None else ', or use --label-map or --ignore'
        self._ignore = None if ignore in label_map else ignore
        flags = dataset.mask_flag_enums[0]
        self._masked = MaskFlags.all_valid not in flags and not (
            MaskFlags.nodata in flags and dataset.nodata in label_map)
        self._unknown = classes + 1
        self._table = np.full(IDS, self._unknown, np.int64)
        self._table[:classes] = np.arange(classes)
        for old, new in label_map.items():
            self._table[old] = classes if new == ignore else new

    def read(self, window: Window) -> np.ndarray:
        """Return the classes (height, width) of a window, int64, or raise a UserError."""
        place = (window.top, window.bottom), (window.left, window.right)
        with named_failure(self.dataset.name, window=window):
            ids = self.dataset.read(1, window=place)
            mask = self.dataset.read_masks(1, window=place) if self._masked else None
        # Unsigned 64-bit ids do not mix with the signed limit.
        inside = (ids >= 0) & (ids < IDS)
        classes = self._table[np.where(inside, ids, 0).astype(np.intp)]
        classes[~inside] = self._unknown
        if self._ignore is not None:
            classes[ids == self._ignore] = self.classes
        if mask is not None:
            classes[mask == 0] = self.classes
        if classes.max() == self._unknown:
            row, column = np.argwhere(classes == self._unknown)[0]
            raise UserError(
                f'{self.dataset.name} holds the id {ids[row, column]} at row '
                f'{window.top + row}, column {window.left + column}, but the classes are 0 to '
                f'{self.classes - 1}: name all of them with --classes{self._hint}')
        return classes
