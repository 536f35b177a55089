"""The record of a prediction: of which files, model and options each output is.

``prediction.json`` in the output folder decides what is predicted again, and keeps predictions of
other images, and files that are not predictions, from being replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhvit_seg.datasets.lidar import find_raster
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import make_output_folder, write_json

RECORD = 'prediction.json'


@dataclass
class Job:
    """One image to predict.

    Attributes:
        image: The image.
        name: Its name below the output folder, without suffix.
        labels: The label map to write.
        overlay: The overlay to write.
        identity: What the prediction is of, plain values: files, model and options.
    """

    image: Path
    name: str
    labels: Path
    overlay: Path
    identity: dict[str, Any]


def list_jobs(names: Mapping[Path, Path], out: Path, lidar: str | Path | None,
              options: Mapping[str, Any]) -> list[Job]:
    """Return for each image what is read and written."""
    jobs = []
    for image, name in names.items():
        raster = None
        with contextlib.suppress(UserError):  # it is reported when its turn comes
            raster = None if lidar is None else find_raster(lidar, name)
        identity = {**options, 'source': describe_file(image),
                    'lidar': None if raster is None else describe_file(raster)}
        jobs.append(Job(image, str(name), out / 'labels' / f'{name}.png',
                        out / 'overlays' / f'{name}.png', identity))
    return jobs


def describe_file(path: Path) -> dict[str, Any]:
    """Return what identifies a version of a file: path, size in bytes and time of change."""
    described: dict[str, Any] = {'path': os.path.abspath(path)}
    with contextlib.suppress(OSError):
        status = path.stat()
        described.update(bytes=status.st_size, modified=status.st_mtime_ns)
    return described


def check_outputs(jobs: Sequence[Job], out: Path, others: Sequence[str | Path]) -> None:
    """Check that no output is an input.

    Raises:
        UserError: An output is an input.
    """
    read = {os.path.realpath(path) for path in others}
    for job in jobs:
        read |= {os.path.realpath(file['path'])
                 for file in (job.identity['source'], job.identity['lidar']) if file}
    for path in (out / RECORD, *(path for job in jobs for path in (job.labels, job.overlay))):
        if os.path.realpath(path) in read:
            raise UserError(f'{path} would be written, but it is an input: give another --out')


def update_record(out: Path, jobs: Sequence[Job], weights: str, opacity: float | None,
                  overwrite: bool) -> list[Job]:
    """Record in ``out`` what its predictions are of, and return what is left to predict.

    Outdated predictions, such as those of an older version of an image, are removed.

    Args:
        out: The output folder.
        jobs: All images.
        weights: The file that the weights are in.
        opacity: As of :func:`predict_files`; None for no overlays.
        overwrite: As of :func:`predict_files`.

    Raises:
        UserError: ``out`` holds predictions of another model or other images under the names that
            are to be written, or files whose origin is unknown.
    """
    record = read_record(out / RECORD, overwrite)
    models, images = record['models'], record['images']
    digest = jobs[0].identity['model']
    if not overwrite:
        for name, entry in images.items():
            if entry['model'] != digest and (out / 'labels' / f'{name}.png').exists():
                raise UserError(f'{out} holds predictions of {models[entry["model"]]}, not of '
                                f'{weights} with these settings: give another --out, or '
                                '--overwrite')
    models[digest] = weights
    todo, stale = [], []
    for job in jobs:
        name = job.name
        wanted = [job.labels] if opacity is None else [job.labels, job.overlay]
        entry = images.get(name)
        if not overwrite:
            check_entry(out, job, wanted, entry)
        # Another image beside it changes the name: 1.png is written as 1, or as 1.png beside 1.jpg.
        suffix = job.image.suffix
        before = name[:-len(suffix)] if name.endswith(suffix) else name + suffix
        if before in images and images[before]['source']['path'] == job.identity['source']['path']:
            check_unchanged(out, before, images[before], overwrite)
            stale += files_of(out, before, images.pop(before))
        written = (entry or {}).get('written')
        same = not overwrite and entry is not None and {**entry, 'written': written} == {
            **job.identity, 'opacity': entry['opacity'], 'written': written}
        shown = entry['opacity'] if same else None
        if not same:
            stale += files_of(out, name, entry) + (wanted if overwrite else [])
        elif opacity not in (None, shown):
            stale += files_of(out, name, entry)[1:]
        if not same or opacity not in (None, shown) or not all(path.exists() for path in wanted):
            check_unchanged(out, name, entry, overwrite)
            todo.append(job)
            written = None
        images[name] = {**job.identity, 'opacity': shown if opacity is None else opacity,
                        'written': written}
    make_output_folder(out, '--out')
    for path in stale:
        path.unlink(missing_ok=True)
    write_json(out / RECORD, record)
    return todo


def note_written(out: Path, names: Iterable[str]) -> None:
    """Record size and time of label maps, so that those corrected by hand are told later."""
    record = read_record(out / RECORD, overwrite=True)
    for name in names:
        record['images'][name]['written'] = stamp_of(out / 'labels' / f'{name}.png')
    write_json(out / RECORD, record)


def stamp_of(path: Path) -> list[int]:
    """Return size in bytes and time of change of a file."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def check_unchanged(out: Path, name: str, entry: Mapping[str, Any] | None, overwrite: bool) -> None:
    """Check that a label map that is to be replaced is as it was written.

    Raises:
        UserError: It was changed.
    """
    path = out / 'labels' / f'{name}.png'
    # Without a stamp: of a run that was killed.
    written = (entry or {}).get('written')
    if not overwrite and written and path.exists() and stamp_of(path) != written:
        raise UserError(f'{path} was changed after it was predicted, and would be replaced: give '
                        'another --out, or --overwrite')


def read_record(path: Path, overwrite: bool) -> dict[str, dict]:
    """Return the weights by digest, and what predictions are of by name.

    Raises:
        UserError: The file is damaged.
    """
    if path.is_file():
        try:
            record = json.loads(path.read_text(encoding='utf-8'))
            if all(entry['model'] in record['models'] and 'path' in entry['source']
                   and 'opacity' in entry for entry in record['images'].values()):
                return record
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        if not overwrite:
            raise UserError(f'{path} is damaged or not of `bhvit-seg predict`: give another --out, '
                            'or --overwrite')
    return {'models': {}, 'images': {}}


def files_of(out: Path, name: str, entry: Mapping[str, Any] | None) -> list[Path]:
    """Return the files of a recorded prediction: the labels, and the overlay if it has one."""
    if entry is None:
        return []
    kinds = ('labels',) if entry['opacity'] is None else ('labels', 'overlays')
    return [out / kind / f'{name}.png' for kind in kinds]


def check_entry(out: Path, job: Job, wanted: Sequence[Path], entry: Mapping[str, Any] | None
                ) -> None:
    """Check that files under the names of a job may be replaced.

    Raises:
        UserError: It is the prediction of another image, or of unknown origin.
    """
    known = files_of(out, job.name, entry)
    for path in filter(Path.exists, [*known, *wanted]):
        if path not in known:
            raise UserError(f'{path} exists, but {RECORD} does not say what it is of: give '
                            'another --out, or --overwrite')
        if entry['source']['path'] != job.identity['source']['path']:
            raise UserError(f'{path} is the prediction of {entry["source"]["path"]}, and '
                            f'{job.image} would be written under the same name: give another '
                            '--out, or --overwrite')
