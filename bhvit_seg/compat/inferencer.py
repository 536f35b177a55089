"""Lets mmseg's ``MMSegInferencer`` run configs whose test pipeline has ``LoadAerialImage``.

The inferencer accepts only ``LoadImageFromFile`` and replaces it by its own loader. Its method is
wrapped: the config's own loader reads files, arrays (H, W, C), blue first, stay the inferencer's.
"""

import functools
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmcv.transforms import Compose
from mmseg.apis import MMSegInferencer
from mmseg.registry import TRANSFORMS


def adapt_inferencer() -> None:
    """Wrap ``MMSegInferencer._init_pipeline``, once."""
    original = MMSegInferencer._init_pipeline
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def init_pipeline(self: MMSegInferencer, cfg: Any) -> Compose:
        pipeline = cfg.test_dataloader.dataset.pipeline
        for place, transform in enumerate(pipeline):
            if transform['type'] == 'LoadAerialImage':
                loader = TRANSFORMS.build(dict(transform))
                pipeline[place] = {'type': 'LoadImageFromFile'}
                built = original(self, cfg)
                built.transforms[place].from_file = loader
                return built
        return original(self, cfg)

    MMSegInferencer._init_pipeline = init_pipeline
