_base_ = '../bhvit/bhvit-tiny_segformer_1xb4-3k_dubai-224x224.py'

model = dict(backbone=dict(_delete_=True, type='BinaryResNet', recipe='reactnet'))
