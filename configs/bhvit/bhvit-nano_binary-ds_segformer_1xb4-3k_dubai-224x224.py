_base_ = './bhvit-tiny_segformer_1xb4-3k_dubai-224x224.py'

model = dict(
    backbone=dict(arch='nano', downsampling='binary'),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64))
