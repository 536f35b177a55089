from .distillation import DistillationSegmentor, SegmentorTeacher

__all__ = ['DistillationSegmentor', 'SegmentorTeacher']
