_base_ = './bhvit-tiny_segformer_1xb8-20k_potsdam-448x448.py'

model = dict(
    backbone=dict(arch='nano', downsampling='binary'),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64))
