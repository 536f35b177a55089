"""``prediction.json``, the record of files, model and options of each output, decides what is
predicted again and protects other files from being replaced."""

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
from bhvit_seg.fileio import make_output_folder, stamp_of, write_json

RECORD = 'prediction.json'
WAY_OUT = 'give another --out, or --overwrite'


@dataclass
class Job:
    image: Path
    name: str  # below the output folder, without suffix
    labels: Path
    overlay: Path
    identity: dict[str, Any]  # what the prediction is of: files, model and options


def list_jobs(names: Mapping[Path, Path], out: Path, lidar: str | Path | None,
              options: Mapping[str, Any]) -> list[Job]:
    jobs = []
    for image, name in names.items():
        raster = None
        with contextlib.suppress(UserError):  # it is reported when its turn comes
            raster = lidar and describe_file(find_raster(lidar, name))
        jobs.append(Job(image, str(name), *paths_of(out, name), {
            **options, 'source': describe_file(image), 'lidar': raster}))
    return jobs


def paths_of(out: Path, name: str | Path) -> list[Path]:
    return [out / kind / f'{name}.png' for kind in ('labels', 'overlays')]


def describe_file(path: Path) -> dict[str, Any]:
    """Return what identifies a version of a file: path, size in bytes and modification time."""
    described: dict[str, Any] = {'path': os.path.abspath(path)}
    with contextlib.suppress(OSError):
        described['bytes'], described['modified'] = stamp_of(path)
    return described


def update_record(out: Path, jobs: Sequence[Job], weights: str, opacity: float | None,
                  overwrite: bool) -> list[Job]:
    """Record in ``out`` what is predicted, remove outdated predictions, and return the jobs left.

    Arguments are those of :func:`predict_files`; ``opacity`` is None for no overlays.

    Raises:
        UserError: ``out`` holds, under the names to be written, predictions of another model or
            other images, files of unknown origin, or labels that were changed.
    """
    record = read_record(out / RECORD, overwrite)
    models, images = record['models'], record['images']
    digest = jobs[0].identity['model']
    for name, entry in images.items():
        if not overwrite and entry['model'] != digest and paths_of(out, name)[0].exists():
            raise UserError(f'{out} holds predictions of {models[entry["model"]]}, not of '
                            f'{weights} with these settings: {WAY_OUT}')
    models[digest] = weights
    todo, stale = [], []
    for job in jobs:
        name, entry, source = job.name, images.get(job.name), job.identity['source']['path']
        known = files_of(out, name, entry)
        wanted = [job.labels] if opacity is None else [job.labels, job.overlay]
        for path in (path for path in (*known, *wanted) if not overwrite and path.exists()):
            if path not in known:
                raise UserError(f'{path} exists, but {RECORD} does not say what it is of: '
                                f'{WAY_OUT}')
            if entry['source']['path'] != source:
                raise UserError(f'{path} is the prediction of {entry["source"]["path"]}, and '
                                f'{job.image} would be written under the same name: {WAY_OUT}')
        # Another image beside it changes the name: 1.png is written as 1, or as 1.png beside 1.jpg.
        suffix = job.image.suffix
        before = name[:-len(suffix)] if name.endswith(suffix) else name + suffix
        if before in images and images[before]['source']['path'] == source:
            check_unchanged(out, before, images[before], overwrite)
            stale += files_of(out, before, images.pop(before))
        same = (not overwrite and entry is not None and opacity in (None, entry['opacity'])
                and all(entry.get(key) == value for key, value in job.identity.items()))
        if same and all(path.exists() for path in wanted):
            continue
        check_unchanged(out, name, entry, overwrite)
        todo.append(job)
        if not same:
            stale += known + (wanted if overwrite else [])
        images[name] = {**job.identity, 'opacity': entry['opacity'] if same else opacity,
                        'written': None}
    make_output_folder(out, '--out')
    for path in stale:
        path.unlink(missing_ok=True)
    write_json(out / RECORD, record)
    return todo


def note_written(out: Path, names: Iterable[str]) -> None:
    """Record size and time of label maps, to recognise later changes by the user."""
    record = read_record(out / RECORD, overwrite=True)
    for name in names:
        record['images'][name]['written'] = stamp_of(paths_of(out, name)[0])
    write_json(out / RECORD, record)


def check_unchanged(out: Path, name: str, entry: Mapping[str, Any] | None, overwrite: bool) -> None:
    """Raise a UserError if a label map that would be replaced was changed since it was written."""
    path = paths_of(out, name)[0]
    written = (entry or {}).get('written')  # None of a run that was killed
    if not overwrite and written and path.exists() and stamp_of(path) != written:
        raise UserError(f'{path} was changed after it was predicted, and would be replaced: '
                        f'{WAY_OUT}')


def read_record(path: Path, overwrite: bool) -> dict[str, dict]:
    """Return the recorded models and images; a damaged file is a UserError unless ``overwrite``."""
    if path.is_file():
        try:
            record = json.loads(path.read_text(encoding='utf-8'))
            if all(entry['model'] in record['models'] and 'path' in entry['source']
                   and 'opacity' in entry for entry in record['images'].values()):
                return record
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        if not overwrite:
            raise UserError(f'{path} is damaged or not of `bhvit-seg predict`: {WAY_OUT}')
    return {'models': {}, 'images': {}}


def files_of(out: Path, name: str, entry: Mapping[str, Any] | None) -> list[Path]:
    """Return the files of a recorded prediction: labels and, where it has one, the overlay."""
    if entry is None:
        return []
    return paths_of(out, name)[:1 if entry['opacity'] is None else 2]
