# The recipe of the shipped model buildings-drone: the backbone begins from imitation of
# EfficientNet-Lite0 (`bhvit-seg pretrain`), which is its teacher, too, after it was fine-tuned on
# these labels. All four places of the set train, as in the config of the teacher.
_base_ = './bhvit-nano_binary-ds_segformer_1xb4-3k_oam-fair-224x224.py'

model = dict(
    type='DistillationSegmentor',
    backbone=dict(init_cfg=dict(
        type='Pretrained', checkpoint='work_dirs/bhvit-nano_imitation/backbone.pth')),
    distillation_weight=0.5,
    teacher=dict(
        config='{{ fileDirname }}/../baselines/'
               'efficientnet-lite0_fpn_1xb4-3k_oam-fair-blocks-224x224.py',
        checkpoint='work_dirs/efficientnet-lite0_fpn_1xb4-3k_oam-fair-blocks-224x224/'
                   'iter_3000.pth'))
max_iters = 1500
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=100, end=max_iters, T_max=max_iters - 100,
         by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
splits = '{{ fileDirname }}/../splits/oam-fair-blocks_'
everywhere = dict(img_path='images', seg_map_path='labels')
train_dataloader = dict(
    batch_size=32, dataset=dict(data_prefix=everywhere, ann_file=splits + 'train.txt'))
val_dataloader = dict(dataset=dict(data_prefix=everywhere, ann_file=splits + 'val.txt'))
test_dataloader = val_dataloader
