# The recipe of the shipped model landcover, on training images cut into tiles of about 480 pixels.
_base_ = [
    './bhvit-nano_binary-ds_segformer_1xb4-3k_dubai-224x224.py', '../_base_/recipe_1500.py'
]

model = dict(
    **_base_.recipe_model,
    teacher=dict(
        config='{{ fileDirname }}/../baselines/efficientnet-lite0_fpn_1xb4-3k_dubai-224x224.py',
        checkpoint='work_dirs/efficientnet-lite0_fpn_1xb4-3k_dubai-224x224/iter_3000.pth'))
param_scheduler = _base_.recipe_schedule
train_cfg = dict(max_iters=1500)
train_dataloader = dict(batch_size=32)
