_base_ = [
    '../_base_/models/bhvit_segformer_road.py', '../_base_/datasets/rs-lvf_camera-lidar.py',
    '../_base_/default_runtime.py', '../_base_/schedules/adamw_20k.py'
]

model = dict(data_preprocessor=_base_.data_preprocessor, backbone=dict(in_channels=4))
