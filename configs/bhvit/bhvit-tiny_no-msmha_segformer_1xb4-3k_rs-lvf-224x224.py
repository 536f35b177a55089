_base_ = './bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'

# Attention over a whole map needs memory by the square of its size: larger images go in windows.
model = dict(
    backbone=dict(attention_span='global'),
    test_cfg=dict(mode='slide', crop_size=(448, 448), stride=(336, 336)))
