"""Backbones, heads, segmentors, layers and losses; importing registers them with mmseg."""

import bhvit_seg.compat.openmmlab  # noqa: F401  (says what to type if the stack is missing)  isort: skip

from . import (  # noqa: F401
    backbones,
    data_preprocessor,
    decode_heads,
    distortion,
    imitation,
    layers,
    losses,
    segmentors,
)
