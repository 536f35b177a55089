# What each ingredient adds to Nano with the same number of labelled iterations: a teacher that
# began from ImageNet, unlabelled images in every batch, pre-training by imitation, all of them. The
# pre-training is done first:
#   bhvit-seg pretrain bhvit-nano_binary-ds_segformer_1xb4-3k_rs-lvf-224x224 \
#       --images data/unlabelled --work-dir work_dirs/nano_imitation
title = 'Nano on EPFL road segmentation: what each ingredient adds'
data_root = 'data/epfl_roads'
seeds = (0, 1)
iterations = 1500
size = (224, 224)
metrics = ('IoU.road', 'mIoU')
cfg_options = {
    'train_dataloader.num_workers': 1,
    # Of the configs' 3000 iterations, as all lengths that `iterations` shortens.
    'train_cfg.val_interval': 1000,
    'default_hooks.checkpoint.interval': 500
}

teacher = {'model.teacher.checkpoint': 'lite0'}
pretrained = {'model.backbone.init_cfg.checkpoint': 'work_dirs/nano_imitation/backbone.pth'}
nano = '../bhvit/bhvit-nano_binary-ds_{}segformer_1xb4-3k_rs-lvf-224x224.py'
rows = [
    dict(name='lite0', config='../baselines/efficientnet-lite0_fpn_1xb4-3k_rs-lvf-224x224.py'),
    dict(name='from-scratch', config=nano.format('')),
    dict(name='teacher', config=nano.format('distill-lite0_'), checkpoints=teacher),
    dict(name='unlabelled', config=nano.format('distill-unlabelled_'), checkpoints=teacher),
    dict(name='pretrained', config=nano.format(''), cfg_options=pretrained),
    dict(
        name='pretrained-teacher',
        config=nano.format('distill-lite0_'),
        cfg_options=pretrained,
        checkpoints=teacher),
    dict(
        name='all',
        config=nano.format('distill-unlabelled_'),
        cfg_options=pretrained,
        checkpoints=teacher)
]
del teacher, pretrained, nano
