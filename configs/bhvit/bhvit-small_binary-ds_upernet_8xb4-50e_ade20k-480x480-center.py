_base_ = './bhvit-small_upernet_8xb4-50e_ade20k-480x480-center.py'

model = dict(backbone=dict(downsampling='binary'))
