# Nano is ours, not the paper's: half the channels of Tiny, MLPs that widen 4 times, a head of 64.
_base_ = './bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'

model = dict(
    backbone=dict(arch='nano', downsampling='binary'),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64))
