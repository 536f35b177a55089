"""Scores of classes in per cent from areas in pixels, and tables; undefined is NaN or None."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

COLUMNS = ('IoU', 'F1', 'Precision', 'Recall')
# Means over classes by the names that mmseg gives them.
MEANS = {'mIoU': 'IoU', 'mFscore': 'F1', 'mAcc': 'Recall'}


def score_areas(intersect: np.ndarray, union: np.ndarray, predicted: np.ndarray,
                labelled: np.ndarray, names: Sequence[str]
                ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Score each class and all together, from (classes,) integer areas in pixels.

    F1 is 2 I / (P + L), with the intersection I and the predicted and labelled areas P and L; it is
    0 for a class that is never predicted. Scores of a class that occurs nowhere are NaN and left
    out of means.

    Returns:
        ``aAcc``, ``mIoU``, ``mFscore`` and ``mAcc``; and the :data:`COLUMNS` of each class by name.
    """
    part = np.stack([intersect, 2 * intersect, intersect, intersect])
    whole = np.stack([union, predicted + labelled, predicted, labelled])
    with np.errstate(invalid='ignore', divide='ignore'):
        scores = dict(zip(COLUMNS, 100 * part / whole))
        accuracy = float(100 * np.float64(intersect.sum()) / labelled.sum())
    summary = {'aAcc': accuracy, **{name: mean_of_defined(scores[column])
                                    for name, column in MEANS.items()}}
    return summary, {name: {column: float(scores[column][label]) for column in COLUMNS}
                     for label, name in enumerate(names)}


def mean_of_defined(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN, or NaN."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def without_nan(scores: dict[str, float]) -> dict[str, float | None]:
    """Replace NaN, which JSON lacks, by None."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in scores.items()}


def class_table(classes: dict[str, dict], summary: dict) -> str:
    """Lay out the scores of all classes, and their means; None is an undefined score."""
    width = max(map(len, ('mean', *classes)))
    rule = '-' * (width + 11 * len(COLUMNS))
    means = {column: summary[name] for name, column in MEANS.items()}

    def row(name: str, cells: Sequence[float | None]) -> str:
        return f'{name:<{width}}' + ''.join(
            f'{"-":>11}' if cell is None else f'{cell:>11.2f}' for cell in cells)

    return '\n'.join([
        ' ' * width + ''.join(f'{column:>11}' for column in COLUMNS), rule,
        *(row(name, [scores.get(column) for column in COLUMNS])
          for name, scores in classes.items()),
        rule, row('mean', [means.get(column) for column in COLUMNS]),
        f'pixel accuracy {summary["aAcc"]:.2f} %'])


def confusion_table(counts: dict[str, Sequence[int]], columns: Sequence[str]) -> str:
    """Lay out counts of pixels: a row for each labelled class, a column for each prediction."""
    corner = 'labelled \\ predicted'
    width = max(map(len, (corner, *counts)))
    widths = [2 + max(len(name), *(len(str(row[i])) for row in counts.values()))
              for i, name in enumerate(columns)]

    def line(name: str, cells: Sequence) -> str:
        return f'{name:<{width}}' + ''.join(f'{cell:>{w}}' for cell, w in zip(cells, widths))

    return '\n'.join([line(corner, columns), '-' * (width + sum(widths)),
                      *(line(name, row) for name, row in counts.items())])
