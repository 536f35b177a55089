"""Inputs of commands: files, folders, glob patterns, or addresses that GDAL opens.

A file on disk is a ``Path``; an address of GDAL, such as ``/vsizip//data/flight.zip/a.tif`` or
``GPKG:tiles.gpkg:summer``, stays text, since ``Path`` would remove a slash.
"""

from __future__ import annotations

import enum
import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bhvit_seg.errors import UserError

# Suffixes searched in folders and patterns; a file that is named itself may have any.
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp')
RASTER_SUFFIXES = ('.tif', '.tiff', '.vrt', '.jp2', '.j2k', '.img', '.png', '.jpg', '.jpeg',
                   '.webp')
# Codecs that OpenCV's wheels encode, by the suffix of the output; other files are read too.
VIDEO_CODECS = {'.mp4': 'mp4v', '.mov': 'mp4v', '.mkv': 'mp4v', '.avi': 'MJPG'}
VIDEO_SUFFIXES = (*VIDEO_CODECS, '.webm', '.m4v', '.mpg', '.mpeg', '.ts', '.mts', '.wmv')
# Virtual file systems, URLs and parts of files (at least two letters: C: is a drive), XML.
_ADDRESS = re.compile(r'/vsi\w+[/?]|[A-Za-z][\w+.-]+:|\s*<')
Kind = enum.Enum('Kind', 'FILE FOLDER ADDRESS PATTERN MISSING')


def kind_of(given: str | os.PathLike) -> Kind:
    """Classify an input; what exists on disk is a file or a folder, whatever its name."""
    text = os.fspath(given)
    # An address that was a Path lacks a slash, and is not a file either.
    if os.path.isdir(text):
        return Kind.FOLDER
    if os.path.lexists(text):
        return Kind.FILE
    if _ADDRESS.match(text):
        return Kind.ADDRESS
    return Kind.PATTERN if glob.has_magic(text) else Kind.MISSING


def is_camera(given: str | os.PathLike) -> bool:
    """Tell whether an input is the number of a camera, and not a file or folder of that name."""
    return os.fspath(given).isdecimal() and not os.path.exists(given)


def is_video(given: str | os.PathLike) -> bool:
    """Tell whether an input is, by its name, a video or a camera."""
    return Path(given).suffix.lower() in VIDEO_SUFFIXES or is_camera(given)


def find_images(inputs: Sequence[str | Path], out: str | Path) -> dict[Path, Path]:
    """List the images of files, folders (with their subfolders) and glob patterns.

    The output folder and hidden files and folders are not searched.

    Returns:
        The name below the output folder, without suffix, by image, sorted: the path below the
        folder, or below the fixed part of a pattern. Images that differ only in their suffix keep
        it.

    Raises:
        UserError: An input is missing or holds no images, the output folder is an input, or two
            images would share a name.
    """
    for given in inputs:
        if kind_of(given) is Kind.ADDRESS:
            raise UserError(f'{given} is an address of GDAL, and images are read from files: give '
                            'a file, a folder or a pattern, or map it with '
                            '`bhvit-seg predict-raster`')
        if kind_of(given) is Kind.MISSING:
            raise UserError(f'no images found at {given}: give an image, a folder of images or a '
                            'pattern')
    return _find(inputs, out, IMAGE_SUFFIXES, 'images')


def find_rasters(inputs: Sequence[str | Path], out: str | Path) -> dict[Path | str, Path]:
    """List rasters like :func:`find_images`, and addresses of GDAL as text."""
    return _find(inputs, out, RASTER_SUFFIXES, 'rasters')


def _find(inputs: Sequence[str | Path], out: str | Path, suffixes: Sequence[str], what: str
          ) -> dict[Path | str, Path]:
    names: dict[Path | str, Path] = {}
    for given in inputs:
        kind, text = kind_of(given), os.fspath(given)
        if kind is Kind.ADDRESS:
            found = [(text, Path(address_name(text)))]
        elif kind in (Kind.FOLDER, Kind.PATTERN):
            found = sorted(_search(text, kind, Path(out).resolve(), suffixes))
        else:
            found = [(Path(text), Path(Path(text).name))]
        if not found:
            raise UserError(f'no {what} found at {text}: give other files, a folder or a pattern; '
                            f'files of {", ".join(suffixes)} are looked for')
        for path, name in found:
            names.setdefault(path, name)
    stems = Counter(name.with_suffix('') for name in names.values())
    owners: dict[Path, Path | str] = {}
    for path, name in names.items():
        name = name.with_suffix('') if stems[name.with_suffix('')] == 1 else name
        if name in owners:
            raise UserError(f'{owners[name]} and {path} would both be written as {name}: give them '
                            'different output folders')
        owners[name] = path
    return {path: name for name, path in owners.items()}


def address_name(address: str) -> str:
    """Return a file name for outputs of an address: its last part, without a query."""
    last = re.split(r'[/\\:!]', re.split(r'[?#]', address)[0].rstrip('/\\:!"\''))[-1]
    return re.sub(r'[^\w.-]', '_', last.strip('"\'<>')) or 'raster'


def files_behind(address: str | os.PathLike) -> list[Path]:
    """Return the files on disk that a path or address of GDAL reads, by its text."""
    text = os.fspath(address)
    if kind_of(text) is not Kind.ADDRESS:
        return [Path(text)] if os.path.isfile(text) else []
    inner = re.sub(r'^(?:[A-Za-z][\w+.-]+:)?(?:/vsi\w+/)*', '', text)
    parts = [part for separators in ('["\'{}]|/vsi\\w+/', ',')
             for part in (inner, *re.split(separators, inner))]
    return list(dict.fromkeys(file for part in parts for file in _longest_file(part)))


def _longest_file(text: str) -> Iterator[Path]:
    ends = [match.start() for match in re.finditer('[/:!]', text)]
    for end in (len(text), *reversed(ends)):
        if os.path.isfile(text[:end]):
            yield Path(text[:end])
            return


def _search(given: str, kind: Kind, out: Path, suffixes: Sequence[str]
            ) -> Iterator[tuple[Path, Path]]:
    """Yield the files of a folder or a pattern, each with its path below the folder."""
    root = Path(given)
    if kind is Kind.PATTERN:
        parts = root.parts
        root = Path(*parts[:next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    if root.resolve() == out:
        raise UserError(f'the output folder {out} is the folder of the inputs itself, where what '
                        'is written would be read by the next run: give another one')
    matches = glob.glob(given, recursive=True) if kind is Kind.PATTERN else [given]
    # What is written around the inputs, rather than among them, is not an input.
    may_hold_out = out not in root.resolve().parents
    for match in matches:
        for path in map(Path, _walk(match) if os.path.isdir(match) else [match]):
            if path.suffix.lower() not in suffixes or path.name.startswith('.'):
                continue
            # Unlike Path.resolve, this accepts a link to itself, which is reported when it is read.
            resolved = Path(os.path.realpath(path))
            if not may_hold_out or out not in (resolved, *resolved.parents):
                yield path, path.relative_to(root)


def _walk(folder: str) -> Iterator[str]:
    """Yield the files below a folder, also through links, each folder once."""
    seen = set()
    for at, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        if os.path.realpath(at) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(at))
        folders[:] = [name for name in folders if not name.startswith('.')]
        yield from (os.path.join(at, name) for name in files)


def _refuse(error: OSError) -> None:
    raise error
