# The network of `make demo`: BHViT with a quarter of Tiny's width and depth, so that two CPU cores
# train it on synthetic scenes in a few minutes.
_base_ = '../bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'

max_iters = 250
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            depths=(1, 1, 2, 1),
            channels=(32, 64, 128, 256),
            mlp_channels=(128, 256, 512, 512),
            num_heads=(1, 1, 2, 4))),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64))
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=30, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=30, end=max_iters, T_max=max_iters - 30,
         by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=125)
default_hooks = dict(checkpoint=dict(interval=125))
