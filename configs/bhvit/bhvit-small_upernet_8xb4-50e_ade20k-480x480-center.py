_base_ = [
    '../_base_/models/bhvit_upernet.py', '../_base_/datasets/ade20k_480x480-center.py',
    '../_base_/default_runtime.py', '../_base_/schedules/adamw_32k.py'
]

model = dict(data_preprocessor=_base_.data_preprocessor)
train_dataloader = dict(batch_size=4)
