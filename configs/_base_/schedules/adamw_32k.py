# 50 epochs of ADE20K (20 210 images) in batches of 32, the length of the published tables of binary
# networks (BiDense, arXiv 2411.10346), with their learning rate.
_base_ = './adamw_160k.py'

max_iters = 31600
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=0, end=max_iters, T_max=max_iters,
         by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=3160)
default_hooks = dict(checkpoint=dict(interval=3160))
