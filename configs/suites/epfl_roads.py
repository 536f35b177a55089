# What binarization costs on 66 tiles with roads, what distillation and regularization give back,
# and how binary baselines and a small float network do, all by one recipe. No model selection on
# validation data: each run is scored after its last iteration.
_base_ = './_base_/short.py'

title = 'Roads from above: EPFL road segmentation'
data_root = 'data/epfl_roads'
metrics = ('IoU.road', 'mIoU')

unregularized = {'default_hooks.weight_regularization.weight': 0.0}
teacher = {'model.teacher.checkpoint': 'twin'}
rows = [
    dict(name='twin', config='../bhvit/bhvit-tiny_fp32_segformer_1xb4-3k_rs-lvf-224x224.py'),
    dict(name='binary', config='../bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'),
    dict(
        name='binary-unregularized',
        config='../bhvit/bhvit-tiny_no-reg_segformer_1xb4-3k_rs-lvf-224x224.py'),
    dict(
        name='distilled',
        config='../bhvit/bhvit-tiny_distill_segformer_1xb4-3k_rs-lvf-224x224.py',
        checkpoints=teacher),
    dict(
        name='distilled-unregularized',
        config='../bhvit/bhvit-tiny_distill_segformer_1xb4-3k_rs-lvf-224x224.py',
        cfg_options=unregularized,
        checkpoints=teacher),
    dict(
        name='distilled-staged',
        config='../bhvit/bhvit-tiny_distill-staged_segformer_1xb4-3k_rs-lvf-224x224.py',
        checkpoints={**teacher, 'default_hooks.training_stages.warm_start': 'twin'}),
    dict(
        name='reactnet-18', config='baselines/reactnet-18_segformer_1xb4-3k_rs-lvf-224x224.py'),
    dict(
        name='binary-vit',
        config='baselines/binary-vit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'),
    dict(name='segformer-b0', config='../baselines/segformer-b0_1xb4-3k_rs-lvf-224x224.py')
]
del unregularized, teacher
