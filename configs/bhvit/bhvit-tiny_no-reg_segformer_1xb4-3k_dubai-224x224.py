_base_ = './bhvit-tiny_segformer_1xb4-3k_dubai-224x224.py'

default_hooks = dict(weight_regularization=dict(weight=0.0))
