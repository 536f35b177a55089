_base_ = './bhvit-small_8xb64-751k_imagenet-224x224.py'

model = dict(backbone=dict(downsampling='binary'))
