_base_ = '../../bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'
custom_imports = dict(imports=['bhvit_seg.modules', 'benchmarks.baselines'])

model = dict(backbone=dict(_delete_=True, type='BinaryResNet', recipe='reactnet'))
