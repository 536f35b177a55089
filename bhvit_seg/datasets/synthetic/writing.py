"""Data sets of synthetic scenes on disk, in the layouts that the configs read."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from bhvit_seg.datasets.synthetic.scene import generate_scene
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_bytes

SPLITS = ('train', 'val')
ADE20K_SPLITS = ('training', 'validation')
ADE20K_CLASSES = 150


def write_dataset(root: str | os.PathLike,
                  n_train: int = 48,
                  n_val: int = 12,
                  size: tuple[int, int] = (256, 256),
                  seed: int = 0,
                  lidar: bool = True) -> None:
    """Write scenes as ``images``, ``annotations`` and ``lidar``, each with ``train`` and ``val``.

    Images and masks (0 background, 1 road) are PNG, heights float32 TIFF in metres. Repeating a
    call writes the same files; ``train`` and ``val`` have different scenes.

    Raises:
        UserError: A count is negative, or a folder holds other files, which would become part of
            the set.
    """
    if n_train < 0 or n_val < 0:
        raise UserError(f'n_train={n_train}, n_val={n_val}: expected counts from 0')
    root = Path(root)
    for split_index, (split, count) in enumerate(zip(SPLITS, (n_train, n_val))):
        names = [f'scene_{index:04d}' for index in range(count)]
        folders = [('images', '.png'), ('annotations', '.png')] + [('lidar', '.tif')] * lidar
        for folder, suffix in folders:
            _prepare(root / folder / split, {name + suffix for name in names})
        for index, name in enumerate(names):
            scene = generate_scene((seed, split_index, index), size)
            _write(root / 'images' / split / f'{name}.png', scene.image[..., ::-1])
            _write(root / 'annotations' / split / f'{name}.png', scene.mask)
            if lidar:
                _write(root / 'lidar' / split / f'{name}.tif', scene.height)


def write_ade20k_like(root: str | os.PathLike,
                      n_train: int = 4,
                      n_val: int = 2,
                      size: tuple[int, int] = (96, 128),
                      seed: int = 0) -> None:
    """Write a small set in the layout of ADE20K (SceneParsing): JPEG images, masks of 0 (other)
    and 1..150; rectangles whose colour depends on their class.

    Raises:
        UserError: A folder holds other files.
    """
    root = Path(root)
    palette = np.random.default_rng(150).integers(0, 256, (ADE20K_CLASSES + 1, 3))
    for split_index, (split, count) in enumerate(zip(ADE20K_SPLITS, (n_train, n_val))):
        rng = np.random.default_rng((seed, split_index))
        names = [f'ADE_{split[:5]}_{index + 1:08d}' for index in range(count)]
        _prepare(root / 'images' / split, {f'{name}.jpg' for name in names})
        _prepare(root / 'annotations' / split, {f'{name}.png' for name in names})
        for name in names:
            mask = np.full(size, rng.integers(1, ADE20K_CLASSES + 1), np.uint8)
            for _ in range(8):
                top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
                height, width = rng.integers(8, size[0] // 2), rng.integers(8, size[1] // 2)
                mask[top:top + height, left:left + width] = rng.integers(0, ADE20K_CLASSES + 1)
            image = palette[mask] + rng.normal(0, 6, (*size, 3))
            image = np.clip(np.round(image), 0, 255).astype(np.uint8)
            _write(root / 'images' / split / f'{name}.jpg', image)
            _write(root / 'annotations' / split / f'{name}.png', mask)


def _prepare(folder: Path, names: set[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in folder.iterdir() if path.name not in names)
    if others:
        raise UserError(f'{folder} already holds {others[0]} and {len(others)} such file(s) that '
                        'are not part of this sample set: give an empty folder')


def _write(path: Path, picture: np.ndarray) -> None:
    write_bytes(path, cv2.imencode(path.suffix, picture)[1].tobytes())
