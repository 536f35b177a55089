"""Lets mmseg's ``MMSegInferencer`` run configs whose test pipeline loads with ``LoadAerialImage``.

The inferencer replaces the entry named ``LoadImageFromFile`` by a loader of its own, and refuses
pipelines without one. Renaming ours would change how every other config of a process loads, so its
method is wrapped: files are loaded by the config's own loader, arrays (H, W, C), blue first, as
the inferencer does.
"""

from __future__ import annotations

import functools
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmcv.transforms import Compose
from mmseg.apis import MMSegInferencer
from mmseg.registry import TRANSFORMS


def adapt_inferencer() -> None:
    """Wrap ``MMSegInferencer._init_pipeline``; calling it again changes nothing."""
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
