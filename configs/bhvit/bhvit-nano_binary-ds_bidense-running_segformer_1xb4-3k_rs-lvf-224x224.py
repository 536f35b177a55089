_base_ = './bhvit-nano_binary-ds_segformer_1xb4-3k_rs-lvf-224x224.py'

model = dict(backbone=dict(adaptive='running'), decode_head=dict(adaptive='running'))
