# EfficientNet-Lite0 with ImageNet weights (extra `teacher`) and a small feature pyramid: what one
# would pick instead of a binary network, and its teacher. Not `model` itself, so that it can stand
# beside a base that has one.
lite0_fpn = dict(
    backbone=dict(
        type='EfficientNetLite',
        arch='lite0',
        init_cfg=dict(type='Pretrained', checkpoint='imagenet')),
    decode_head=dict(
        type='TopDownHead',
        in_channels=[24, 40, 112, 320],
        in_index=[0, 1, 2, 3],
        channels=96,
        dropout_ratio=0.1,
        norm_cfg=dict(type='BN'),
        align_corners=False))
