"""Write data sets of synthetic scenes in the layout that the rs-lvf configs read."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from bhvit_seg.datasets.synthetic.scene import generate_scene
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_bytes


def write_dataset(root: str | os.PathLike, n_train: int = 48, n_val: int = 12,
                  size: tuple[int, int] = (256, 256), seed: int = 0, lidar: bool = True) -> None:
    """Write scenes as ``images``, ``annotations`` and ``lidar``, each with ``train`` and ``val``.

    Images and masks (0 background, 1 road) are PNG, heights float32 TIFF in metres. Equal arguments
    write equal files.
    """
    if n_train < 0 or n_val < 0:
        raise UserError(f'n_train={n_train}, n_val={n_val}: expected counts from 0')
    for number, (split, count) in enumerate((('train', n_train), ('val', n_val))):
        folders = {Path(root, name, split): suffix for name, suffix in (
            ('images', '.png'), ('annotations', '.png'), ('lidar', '.tif'))[:3 if lidar else 2]}
        for folder, suffix in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            others = sorted({path.name for path in folder.iterdir()}
                            - {f'scene_{index:04d}{suffix}' for index in range(count)})
            if others:
                raise UserError(f'{folder} already holds {others[0]} and {len(others)} such '
                                'file(s) that are not part of this sample set: give an empty '
                                'folder')
        for index in range(count):
            scene = generate_scene((seed, number, index), size)
            for (folder, suffix), pixels in zip(
                    folders.items(), (scene.image[..., ::-1], scene.mask, scene.height)):
                write_bytes(folder / f'scene_{index:04d}{suffix}',
                            cv2.imencode(suffix, pixels)[1].tobytes())
