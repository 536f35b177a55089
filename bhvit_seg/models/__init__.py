"""Backbones, heads, layers and losses; importing registers them in mmseg's registries."""

import bhvit_seg.mm  # noqa: F401  (says what to type if the stack is missing)

from . import backbones, layers  # noqa: F401
