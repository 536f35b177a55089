_base_ = './bhvit-small_segformer_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(binary=False), decode_head=dict(binary=False))
