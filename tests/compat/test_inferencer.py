"""mmseg's MMSegInferencer runs our configs, in a process that knows nothing else of bhvit_seg."""

import subprocess
import sys

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from bhvit_seg.inference.torch_predictor import TorchPredictor
from bhvit_seg.shipped import find_config
from bhvit_seg.training.config import load_config

NAME = 'bhvit-mini_segformer_1xb8-250_rs-lvf-224x224'
PROGRAM = """
import sys
import numpy as np
from PIL import Image
from mmseg.apis import MMSegInferencer
config, weights, image, out = sys.argv[1:]
inferencer = MMSegInferencer(model=config, weights=weights, device='cpu')
by_path = inferencer(image)['predictions']
array = np.asarray(Image.open(image))[..., ::-1]
by_array = inferencer(np.ascontiguousarray(array))['predictions']
inferencer(image, out_dir=out)
np.savez(out, by_path=by_path, by_array=by_array)
"""


def test_labels_are_those_of_our_predictor(tmp_path):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    checkpoint, image = tmp_path / 'random.pth', tmp_path / 'tile.png'
    meta = {'classes': ('background', 'road'), 'palette': [[0, 0, 0], [255, 255, 255]]}
    torch.save({'state_dict': MODELS.build(load_config(NAME).model).state_dict(),
                'meta': {'dataset_meta': meta}}, checkpoint)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)).save(image)
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', PROGRAM, find_config(NAME), checkpoint, image,
         tmp_path / 'out'],
        capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    expected = TorchPredictor(find_config(NAME), checkpoint, 'cpu')(image)
    assert len(np.unique(expected)) == 2
    predicted = np.load(tmp_path / 'out.npz')
    assert np.array_equal(predicted['by_path'], expected)
    assert np.array_equal(predicted['by_array'], expected)
    assert (tmp_path / 'out' / 'vis' / 'tile.png').is_file()
