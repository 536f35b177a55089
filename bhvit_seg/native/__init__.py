"""The packed model: a trained segmentor as bits, run by the engine in ``csrc``.

Imports NumPy alone, so that a device that has neither torch nor OpenMMLab's packages predicts.
``bhvit_seg.native.export`` makes packed models and needs both.
"""

from .engine import instruction_sets, processor_limits, usable_cores
from .segmentor import PATCH, PackedSegmentor

__all__ = ['PATCH', 'PackedSegmentor', 'instruction_sets', 'processor_limits', 'usable_cores']
