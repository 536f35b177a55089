"""``prediction.json``, the record of files, model and options of each output: what is there already
is not predicted again, and what is of something else is not replaced."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhvit_seg.datasets.lidar import find_raster
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import make_output_folder, stamp_of, write_json

RECORD = 'prediction.json'


@dataclass
class Job:
    image: Path
    name: str  # below the output folder, without suffix
    labels: Path
    overlay: Path | None
    identity: dict[str, Any]  # what the prediction is of: files, model and options


def list_jobs(names: Mapping[Path, Path], out: Path, lidar: str | Path | None,
              options: Mapping[str, Any]) -> list[Job]:
    """Return the jobs of images; ``opacity`` of the options is None for no overlays."""
    jobs = []
    for image, name in names.items():
        raster = None
        with contextlib.suppress(UserError):  # it is reported when its turn comes
            raster = lidar and describe_file(find_raster(lidar, name))
        labels, overlay = (out / kind / f'{name}.png' for kind in ('labels', 'overlays'))
        jobs.append(Job(
            image, str(name), labels, None if options['opacity'] is None else overlay,
            {**options, 'image': describe_file(image), 'lidar': raster}))
    return jobs


def describe_file(path: Path) -> dict[str, Any]:
    """Return what identifies a version of a file: path, size in bytes and modification time."""
    described: dict[str, Any] = {'path': os.path.abspath(path)}
    with contextlib.suppress(OSError):
        described['bytes'], described['modified'] = stamp_of(path)
    return described


def choose_jobs(out: Path, jobs: Sequence[Job], overwrite: bool) -> list[Job]:
    """Record in ``out`` what is predicted, and return the jobs that are left.

    Raises:
        UserError: Without ``overwrite``, a file to be written exists and is not recorded as the
            prediction of the same image by the same model with the same options.
    """
    record: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        record = dict(json.loads((out / RECORD).read_text(encoding='utf-8')))
    left = []
    for job in jobs:
        # Another image beside it changes the name: 1.png is written as 1, or as 1.png beside 1.jpg.
        name, suffix = job.name, job.image.suffix
        before = name[:-len(suffix)] if name.endswith(suffix) else name + suffix
        stale = out / 'labels' / f'{before}.png'
        former = (record.get(before) or {}).get('image') or {}
        if former.get('path') == job.identity['image']['path'] and stale.exists():
            if not overwrite:
                raise UserError(f'{stale} is of {job.image}, which is now written as {name}.png: '
                                'remove it, give another --out, or --overwrite')
            for path in (stale, out / 'overlays' / stale.name):
                path.unlink(missing_ok=True)
        files = [path for path in (job.labels, job.overlay) if path is not None]
        there = [path for path in files if path.exists()]
        # Without overlays the opacity of earlier ones does not matter.
        identity = {key: value for key, value in job.identity.items()
                    if key != 'opacity' or value is not None}
        known = record.get(job.name) or {}
        if there and not overwrite and not identity.items() <= known.items():
            raise UserError(f'{there[0]} is there already, and is not recorded as what is made of '
                            f'{job.image} by this model with these options: remove it, give '
                            'another --out, or --overwrite')
        if overwrite or len(there) < len(files):
            left.append(job)
        record[job.name] = {**known, **identity}
    make_output_folder(out, '--out')
    write_json(out / RECORD, record)
    return left
