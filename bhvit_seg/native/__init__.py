"""The packed model: a trained segmentor as bits, run by the engine in ``csrc``.

Needs only NumPy; ``bhvit_seg.native.export``, which makes packed models, needs the whole stack.
"""

from .engine import instruction_sets, processor_limits, usable_cores
from .segmentor import PATCH, PackedSegmentor

__all__ = ['PATCH', 'PackedSegmentor', 'instruction_sets', 'processor_limits', 'usable_cores']
