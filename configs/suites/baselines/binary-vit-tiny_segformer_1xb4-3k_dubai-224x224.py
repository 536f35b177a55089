_base_ = '../../bhvit/bhvit-tiny_segformer_1xb4-3k_dubai-224x224.py'
custom_imports = dict(imports=['bhvit_seg.modules', 'benchmarks.baselines'])

# Larger images go in windows of the size trained on, as is usual for a plain ViT.
model = dict(
    backbone=dict(_delete_=True, type='BinaryViT'),
    decode_head=dict(in_channels=[256, 256, 256, 256]),
    test_cfg=dict(mode='slide', crop_size=(224, 224), stride=(168, 168)))
