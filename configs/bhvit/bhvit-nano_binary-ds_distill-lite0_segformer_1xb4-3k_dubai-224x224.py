# Taught by EfficientNet-Lite0, which is fine-tuned on these labels first.
_base_ = './bhvit-nano_binary-ds_segformer_1xb4-3k_dubai-224x224.py'

model = dict(
    type='DistillationSegmentor',
    distillation_weight=0.5,
    teacher=dict(
        config='{{ fileDirname }}/../baselines/efficientnet-lite0_fpn_1xb4-3k_dubai-224x224.py',
        checkpoint='work_dirs/efficientnet-lite0_fpn_1xb4-3k_dubai-224x224/iter_3000.pth'))
