# Taught by EfficientNet-Lite0, which began from ImageNet and is fine-tuned on these labels first.
# Another checkpoint is named with --cfg-options model.teacher.checkpoint=...
_base_ = './bhvit-nano_binary-ds_segformer_1xb4-3k_rs-lvf-224x224.py'

model = dict(
    type='DistillationSegmentor',
    distillation_weight=0.5,
    teacher=dict(
        config='{{ fileDirname }}/../baselines/efficientnet-lite0_fpn_1xb4-3k_rs-lvf-224x224.py',
        checkpoint='work_dirs/efficientnet-lite0_fpn_1xb4-3k_rs-lvf-224x224/iter_3000.pth'))
