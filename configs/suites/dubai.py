# The same comparison on land cover in five classes. Val images are whole neighbourhoods.
_base_ = './_base_/short.py'

title = 'Land cover of Dubai'
data_root = 'data/dubai_landcover'
metrics = ('mIoU', 'IoU.road')
# Scoring takes as long as fifty iterations: once, in the end.
cfg_options = {'train_cfg.val_interval': 6000}

unregularized = {'default_hooks.weight_regularization.weight': 0.0}
teacher = {'model.teacher.checkpoint': 'twin'}
rows = [
    dict(name='twin', config='../bhvit/bhvit-tiny_fp32_segformer_1xb4-3k_dubai-224x224.py'),
    dict(name='binary', config='../bhvit/bhvit-tiny_segformer_1xb4-3k_dubai-224x224.py'),
    dict(
        name='binary-unregularized',
        config='../bhvit/bhvit-tiny_no-reg_segformer_1xb4-3k_dubai-224x224.py'),
    dict(
        name='distilled',
        config='../bhvit/bhvit-tiny_distill_segformer_1xb4-3k_dubai-224x224.py',
        checkpoints=teacher),
    dict(
        name='distilled-unregularized',
        config='../bhvit/bhvit-tiny_distill_segformer_1xb4-3k_dubai-224x224.py',
        cfg_options=unregularized,
        checkpoints=teacher),
    dict(name='reactnet-18', config='baselines/reactnet-18_segformer_1xb4-3k_dubai-224x224.py'),
    dict(
        name='binary-vit',
        config='baselines/binary-vit-tiny_segformer_1xb4-3k_dubai-224x224.py'),
    dict(name='segformer-b0', config='../baselines/segformer-b0_1xb4-3k_dubai-224x224.py')
]
del unregularized, teacher
