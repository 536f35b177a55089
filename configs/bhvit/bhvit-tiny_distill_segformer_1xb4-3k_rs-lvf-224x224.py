# Taught by its full-precision twin, which is trained first. Another checkpoint of the twin is named
# with --cfg-options model.teacher.checkpoint=...
_base_ = './bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'

model = dict(
    type='DistillationSegmentor',
    teacher=dict(
        config='{{ fileDirname }}/bhvit-tiny_fp32_segformer_1xb4-3k_rs-lvf-224x224.py',
        checkpoint='work_dirs/bhvit-tiny_fp32_segformer_1xb4-3k_rs-lvf-224x224/iter_3000.pth'))
