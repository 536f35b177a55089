_base_ = './bhvit-small_fp32_segformer_1xb8-20k_rs-lvf-camera-lidar-448x448.py'

model = dict(backbone=dict(arch='tiny'))
