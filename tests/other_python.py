"""Labels of the shipped models in another Python, like the emulated one of ``make test-aarch64``,
compared with this one's:

    python tests/other_python.py PYTHON
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from bhvit_seg.native import PackedSegmentor

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGE = REPOSITORY / 'docs' / 'images' / 'buildings.jpg'
PREDICT = """
import sys
import numpy as np
from bhvit_seg.native import PackedSegmentor
model, image, labels = sys.argv[1:]
segmentor = PackedSegmentor(model, threads=1)
np.save(labels, segmentor.predict(np.load(image)))
print(segmentor.instruction_set)
"""


def main(python: str) -> None:
    models = sorted((REPOSITORY / 'bhvit_seg' / 'zoo').glob('*.bhv'))
    assert models
    image = cv2.cvtColor(cv2.imread(str(IMAGE)), cv2.COLOR_BGR2RGB)
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        pixels, labels = Path(folder, 'image.npy'), Path(folder, 'labels.npy')
        np.save(pixels, image)
        for model in models:
            segmentor = PackedSegmentor(model, threads=1)
            here = segmentor.predict(image)
            start = time.perf_counter()
            kernels = subprocess.run([python, '-c', PREDICT, model, pixels, labels], cwd=folder,
                                     check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            seconds = time.perf_counter() - start
            different = np.count_nonzero(here != np.load(labels))
            differing += different
            print(f'{model.stem}: {different} of {here.size} labels differ between {kernels} there '
                  f'({seconds:.0f} s) and {segmentor.instruction_set} here', flush=True)
    sys.exit(f'error: {differing} labels differ' if differing else 0)


if __name__ == '__main__':
    main(sys.argv[1])
