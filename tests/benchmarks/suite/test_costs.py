from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config

from benchmarks.suite.costs import twin_predictor
from benchmarks.training import full_precision_twin
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear


@pytest.mark.parametrize('name', [
    'bhvit/bhvit-tiny_segformer', 'rivals/reactnet-18_segformer',
    'rivals/binary-vit-tiny_segformer', 'rivals/segformer-b0'])
def test_twin_has_no_bits_and_labels_an_image(repository, name):
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    path = repository / 'configs' / f'{name}_1xb4-3k_rs-lvf-224x224.py'
    cfg = Config.fromfile(str(path))
    init_default_scope('mmseg')
    twin = MODELS.build(full_precision_twin(cfg.model))
    layers = [m for m in twin.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    assert bool(layers) == ('b0' not in name) and not any(layer.binary for layer in layers)
    labels = twin_predictor(cfg, path, (32, 64))(np.zeros((32, 64, 3), np.uint8))
    assert labels.shape == (32, 64) and labels.dtype == np.uint8 and labels.max() <= 1
