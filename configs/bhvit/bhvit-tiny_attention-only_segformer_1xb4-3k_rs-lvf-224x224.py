_base_ = './bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'

# Attention at stride 4 needs memory by the square of the map's size: larger images go in windows.
model = dict(
    backbone=dict(token_mixers='attention'),
    test_cfg=dict(mode='slide', crop_size=(448, 448), stride=(336, 336)))
