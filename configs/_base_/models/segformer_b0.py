# SegFormer-B0 (arXiv 2105.15203) of mmseg, in real values: the float alternative to BHViT-Tiny. Not
# `model` itself, so that it can stand beside a base that has one.
segformer_b0 = dict(
    backbone=dict(
        type='MixVisionTransformer',
        in_channels=3,
        embed_dims=32,
        num_stages=4,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 5, 8],
        patch_sizes=[7, 3, 3, 3],
        sr_ratios=[8, 4, 2, 1],
        out_indices=(0, 1, 2, 3),
        mlp_ratio=4,
        qkv_bias=True,
        drop_path_rate=0.0),
    decode_head=dict(
        type='SegformerHead',
        in_channels=[32, 64, 160, 256],
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        norm_cfg=dict(type='BN'),
        align_corners=False),
    # Attention at stride 4 needs gigabytes for an image of megapixels: larger ones go in windows.
    test_cfg=dict(mode='slide', crop_size=(448, 448), stride=(336, 336)))
