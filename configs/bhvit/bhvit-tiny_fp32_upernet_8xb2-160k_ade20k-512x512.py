_base_ = './bhvit-small_fp32_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(arch='tiny'))
