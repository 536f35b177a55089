_base_ = [
    '../_base_/models/bhvit_upernet.py', '../_base_/datasets/ade20k_512x512.py',
    '../_base_/default_runtime.py', '../_base_/schedules/adamw_160k.py'
]

model = dict(data_preprocessor=_base_.data_preprocessor)
train_dataloader = dict(batch_size=2)
