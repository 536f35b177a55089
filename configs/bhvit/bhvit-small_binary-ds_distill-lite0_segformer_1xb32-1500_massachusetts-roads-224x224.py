_base_ = './bhvit-nano_binary-ds_distill-lite0_segformer_1xb32-1500_massachusetts-roads-224x224.py'

model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint='work_dirs/bhvit-small_imitation/backbone.pth')),
    decode_head=dict(in_channels=[64, 128, 256, 512], channels=128))
