"""The packed model and its engine; needs only NumPy, except for ``export``."""

from .engine import instruction_sets, processor_limits, usable_cores
from .segmentor import PATCH, PackedSegmentor

__all__ = ['PATCH', 'PackedSegmentor', 'instruction_sets', 'processor_limits', 'usable_cores']
