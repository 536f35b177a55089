_base_ = './bhvit-tiny_8xb64-751k_imagenet-224x224.py'

model = dict(backbone=dict(downsampling='binary'))
