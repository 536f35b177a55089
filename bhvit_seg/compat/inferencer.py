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

OURS = 'LoadAerialImage'


def adapt_inferencer() -> None:
    """Wrap ``MMSegInferencer._init_pipeline``; calling it again changes nothing."""
    original = MMSegInferencer._init_pipeline
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def init_pipeline(self: MMSegInferencer, cfg: Any) -> Compose:
        pipeline = cfg.test_dataloader.dataset.pipeline
        places = [i for i, transform in enumerate(pipeline) if transform['type'] == OURS]
        if not places:
            return original(self, cfg)
        loader = TRANSFORMS.build(dict(pipeline[places[0]]))
        pipeline[places[0]] = {'type': 'LoadImageFromFile'}
        built = original(self, cfg)
        built.transforms[places[0]].from_file = loader
        return built

    MMSegInferencer._init_pipeline = init_pipeline
