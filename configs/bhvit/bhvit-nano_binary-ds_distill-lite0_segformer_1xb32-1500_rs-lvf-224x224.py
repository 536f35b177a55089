# The recipe of the shipped models on the EPFL roads.
_base_ = [
    './bhvit-nano_binary-ds_segformer_1xb4-3k_rs-lvf-224x224.py', '../_base_/recipe_1500.py'
]

model = dict(
    **_base_.recipe_model,
    teacher=dict(
        config='{{ fileDirname }}/../baselines/efficientnet-lite0_fpn_1xb4-3k_rs-lvf-224x224.py',
        checkpoint='work_dirs/efficientnet-lite0_fpn_1xb4-3k_rs-lvf-224x224/iter_3000.pth'))
param_scheduler = _base_.recipe_schedule
train_cfg = dict(max_iters=1500)
train_dataloader = dict(batch_size=32)
