"""Small random data sets in the folders of their publishers or of mmsegmentation's converters."""

from pathlib import Path

import cv2
import numpy as np

# The label of each value that masks have, by the data set in a config's name.
LABELS = {
    'loveda': {0: 255, **{value: value - 1 for value in range(1, 8)}},
    'potsdam': {0: 255, **{value: value - 1 for value in range(1, 7)}},
    'vaihingen': {0: 255, **{value: value - 1 for value in range(1, 7)}},
    'isaid': {255: 255, **{value: value for value in range(16)}},
    'deepglobe-roads': {0: 0, 3: 0, 250: 1, 255: 1},
    'massachusetts-roads-original': {0: 0, 255: 1},
    'landcover-ai': {value: value for value in range(5)},
    'openearthmap': {0: 255, **{value: value - 1 for value in range(1, 9)}},
}
TILES = 'img_dir/{split}/{name}.png', 'ann_dir/{split}/{name}.png', None
# Image, mask, and the line of the split's list, which lies beside the folders.
FILES = {
    'loveda': TILES, 'potsdam': TILES, 'vaihingen': TILES,
    'isaid': (TILES[0], 'ann_dir/{split}/{name}_instance_color_RGB.png', None),
    'deepglobe-roads': ('train/{name}_sat.jpg', 'train/{name}_mask.png', '{name}'),
    'massachusetts-roads-original': ('{split}/sat/{name}.tiff', '{split}/map/{name}.tif', None),
    'landcover-ai': ('output/{name}.jpg', 'output/{name}_m.png', '{name}'),
    'openearthmap': ('{region}/images/{name}.tif', '{region}/labels/{name}.tif', '{name}.tif'),
}


def write_layout(root: Path, data: str, size: tuple[int, int] = (96, 128)
                 ) -> dict[str, list[np.ndarray]]:
    """Write two training and two validation images; return the labels by split, sorted by file."""
    rng = np.random.default_rng(0)
    values = np.array(list(LABELS[data]), np.uint8)
    lookup = np.zeros(256, np.uint8)
    lookup[values] = list(LABELS[data].values())
    colours = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    truth = {}
    for split in ('train', 'valid' if data.startswith('massachusetts') else 'val'):
        for number in (1, 2):
            words = {'split': split, 'region': f'{split}ton', 'name': f'{split}ton_{number}'}
            image, mask, line = (text and text.format(**words) for text in FILES[data])
            cells = rng.permutation(np.resize(values, 12 * 16)).reshape(12, 16)
            ids = cells.repeat(size[0] // 12, 0).repeat(size[1] // 16, 1)
            for name in (image, mask):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
            # mmsegmentation's converter of iSAID writes BMP under this name.
            suffix = '.bmp' if data == 'isaid' else Path(image).suffix
            (root / image).write_bytes(cv2.imencode(suffix, colours[ids])[1].tobytes())
            in_three_channels = data in ('deepglobe-roads', 'landcover-ai')
            assert cv2.imwrite(str(root / mask),
                               np.dstack([ids] * 3) if in_three_channels else ids)
            if line:
                with (root / f'{split}.txt').open('a') as listing:
                    listing.write(f'{line}\n')
            truth.setdefault(split, []).append(lookup[ids])
    return truth
