"""Backbones, heads, layers and losses; importing registers them in mmseg's registries."""

import bhvit_seg.mm  # noqa: F401  (says what to type if the stack is missing)  isort: skip

from . import backbones, data_preprocessor, decode_heads, layers, losses  # noqa: F401
