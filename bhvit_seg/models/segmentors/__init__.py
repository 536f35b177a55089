from .distillation import DistillationSegmentor
from .teacher import FrozenTeacher

__all__ = ['DistillationSegmentor', 'FrozenTeacher']
