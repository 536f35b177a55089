# BHViT-Small, full-precision downsampling (marked † in the paper), with a binary SegFormer head.
model = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='BHViT',
        arch='small',
        downsampling='full_precision',
        norm_cfg=dict(type='BN'),
        attention='qd',
        binary=True,
        in_channels=3,
        window_size=7,
        drop_path_rate=0.1,
        # Weights to begin from, such as those of `bhvit-seg pretrain`; None: none.
        init_cfg=dict(type='Pretrained', checkpoint=None)),
    decode_head=dict(
        type='BinarySegformerHead',
        in_channels=[64, 128, 256, 512],
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='BN'),
        binary=True,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
