"""Which rasters a prediction reads, and under which names it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import name_outputs

# What is looked for in folders; a file that is named itself may have any suffix.
SUFFIXES = ('.tif', '.tiff', '.vrt', '.jp2', '.j2k', '.img', '.png', '.jpg', '.jpeg', '.webp')


def find_rasters(inputs: Sequence[str | Path], out: str | Path) -> list[tuple[Path, Path]]:
    """List the rasters of files and folders.

    Args:
        inputs: Each a raster or a folder, which is searched with its subfolders. What lies in
            neither is left for GDAL to open or to refuse.
        out: The output file or folder, which is never searched; nor are hidden files and folders.

    Returns:
        Each raster once, with the name below an output folder, without suffix, to write it under:
        the path below the input folder. Rasters that differ only in their suffix keep it.

    Raises:
        UserError: A folder holds no rasters, or two rasters would share a name.
    """
    names: dict[Path, Path] = {}
    for given in map(Path, inputs):
        found = sorted(_search(given, Path(out).resolve())) if given.is_dir() else [
            (given, Path(given.name))]
        if not found:
            raise UserError(f'no rasters found in the folder {given}: give a raster, or a folder '
                            f'with files of {", ".join(SUFFIXES)}')
        for raster, name in found:
            names.setdefault(raster, name)
    return list(name_outputs(names).items())


def _search(root: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the rasters below a folder, each with its path below it."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith('.')
                         and (Path(folder) / name).resolve() != out]
        for file in files:
            raster = Path(folder) / file
            if (raster.suffix.lower() in SUFFIXES and not file.startswith('.')
                    and raster.resolve() != out):
                yield raster, raster.relative_to(root)
