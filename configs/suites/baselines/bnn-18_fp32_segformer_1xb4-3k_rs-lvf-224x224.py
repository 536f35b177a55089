_base_ = './bnn-18_segformer_1xb4-3k_rs-lvf-224x224.py'

model = dict(backbone=dict(binary=False), decode_head=dict(binary=False))
