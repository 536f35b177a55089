# The recipe of the shipped model roads-1m: the backbone begins from imitation of EfficientNet-Lite0
# (`bhvit-seg pretrain`), which is its teacher, too, after it was fine-tuned on these labels.
_base_ = './bhvit-nano_binary-ds_segformer_1xb4-3k_massachusetts-roads-224x224.py'

model = dict(
    type='DistillationSegmentor',
    backbone=dict(init_cfg=dict(
        type='Pretrained', checkpoint='work_dirs/bhvit-nano_imitation/backbone.pth')),
    distillation_weight=0.5,
    teacher=dict(
        config='{{ fileDirname }}/../baselines/'
               'efficientnet-lite0_fpn_1xb4-3k_massachusetts-roads-224x224.py',
        checkpoint='work_dirs/efficientnet-lite0_fpn_1xb4-3k_massachusetts-roads-224x224/'
                   'iter_3000.pth'))
max_iters = 1500
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=100, end=max_iters, T_max=max_iters - 100,
         by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
train_dataloader = dict(batch_size=32)
