# A recipe for a CPU and about a hundred images: 224 crops at the images' own scale.
_base_ = [
    '../_base_/models/bhvit_segformer_road.py', '../_base_/datasets/rs-lvf_camera.py',
    '../_base_/default_runtime.py', '../_base_/schedules/adamw_3k.py'
]

crop_size = (224, 224)
data_preprocessor = dict(size=crop_size)
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(crop_size=crop_size, ratio_range=(0.75, 1.5))

model = dict(
    data_preprocessor={**_base_.data_preprocessor, **data_preprocessor},
    backbone=dict(arch='tiny', drop_path_rate=0.0),
    decode_head=dict(channels=128, loss_decode=dict(class_weight=[1.0, 2.0])))
train_dataloader = dict(
    batch_size=4, num_workers=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1)
test_dataloader = val_dataloader
