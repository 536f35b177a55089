# What the recipes of the shipped models share: the backbone begins from imitation of
# EfficientNet-Lite0 (`bhvit-seg pretrain`), which is the teacher, too, after it was fine-tuned on
# the labels. Not `model` itself, so that it can stand beside a base that has one.
recipe_model = dict(
    type='DistillationSegmentor',
    backbone=dict(init_cfg=dict(
        type='Pretrained', checkpoint='work_dirs/bhvit-nano_imitation/backbone.pth')),
    distillation_weight=0.5)
recipe_schedule = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=100, end=1500, T_max=1400, by_epoch=False)
]
