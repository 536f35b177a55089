# BHViT-Small, full-precision downsampling (marked † in the paper), with a binary UPerNet head.
_base_ = './bhvit_segformer.py'

model = dict(
    decode_head=dict(type='BinaryUPerHead', pool_scales=(1, 2, 3, 6)),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=256,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        conv_cfg=dict(type='BinaryConv2d'),
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='RPReLU', num_parameters=256),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)))
