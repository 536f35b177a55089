# The paper's optimizer at a length for a few hundred to a few thousand aerial images.
_base_ = './adamw_160k.py'

max_iters = 20000
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=0, end=max_iters, T_max=max_iters,
         by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
