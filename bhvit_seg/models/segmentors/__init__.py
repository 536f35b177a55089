from .distillation import DistillationSegmentor
from .teacher import SegmentorTeacher

__all__ = ['DistillationSegmentor', 'SegmentorTeacher']
