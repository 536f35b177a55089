"""Small trained-like segmentors for the tests of baselines."""

from typing import Callable

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from native.segmentors import balance_classes, build_segmentor, picture


@pytest.fixture
def segmentor() -> Callable[..., torch.nn.Module]:
    """A function that builds a segmentor in which every parameter and statistic counts."""

    def build(downsampling='full_precision', head='BinarySegformerHead', exchange=True,
              attention='qd', norm='BN', binary=True, output_norm=True, **options):
        norm_cfg = dict(type=norm)
        model = build_segmentor(
            head=head, preprocessor=dict(bgr_to_rgb=exchange),
            backbone=dict(downsampling=downsampling, attention=attention, norm_cfg=norm_cfg,
                          binary=binary, output_norm=output_norm),
            head_options=dict(norm_cfg=norm_cfg, binary=binary), **options)
        balance_classes(model)
        model.test_cfg = ConfigDict(model.test_cfg)  # as a runner builds it
        return model.requires_grad_(False)

    return build


@pytest.fixture
def image() -> Callable[..., np.ndarray]:
    """A function that makes a random image ``(H, W, C)``, RGB."""
    return lambda *shape: picture(shape[:2], shape[2])
