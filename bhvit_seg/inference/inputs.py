"""Which images a prediction reads, and under which names it writes."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import name_outputs

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp')


def find_images(inputs: Sequence[str | Path], out: str | Path) -> dict[Path, Path]:
    """List the images of files, folders and globs.

    Args:
        inputs: Each an image, a folder (searched with its subfolders) or a glob pattern.
        out: The output folder, which is never searched.

    Returns:
        dict: The name below the output folder, without suffix, by image, sorted. It is the path
        below the folder, or below the part of a pattern that has no wildcard; images that
        differ only in their suffix keep it.

    Raises:
        UserError: An input is missing or holds no images, or two images would share a name.
    """
    names: dict[Path, Path] = {}
    for given in inputs:
        found = list(expand(str(given), Path(out).resolve()))
        if not found:
            raise UserError(f'no images found at {given}: give an image, a folder of images or a '
                            f'pattern; {", ".join(SUFFIXES)} are read')
        for image, name in sorted(found):
            names.setdefault(image, name)
    return name_outputs(names)


def expand(given: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the images of one input, each with its path below the input's folder."""
    path = Path(given)
    if path.is_file():
        yield path, Path(path.name)
        return
    if path.is_dir():
        root, candidates = path, path.rglob('*')
    else:
        root = Path(*fixed_parts(path))
        candidates = map(Path, glob.glob(given, recursive=True))
    for image in candidates:
        hidden = image.name.startswith('.')
        if (image.suffix.lower() in SUFFIXES and not hidden and image.is_file()
                and out not in image.resolve().parents):
            yield image, image.relative_to(root)


def fixed_parts(pattern: Path) -> Iterator[str]:
    """Yield the leading parts of a pattern that have no wildcard."""
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part
