_base_ = './efficientnet-lite0_fpn_1xb4-3k_oam-fair-blocks-224x224.py'

model = dict(
    backbone=dict(arch='lite2'), decode_head=dict(in_channels=[24, 48, 120, 352]))
