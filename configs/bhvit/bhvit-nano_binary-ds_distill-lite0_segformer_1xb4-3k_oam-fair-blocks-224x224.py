# All four places of the set train, as in the config of the teacher, which is trained first.
_base_ = './bhvit-nano_binary-ds_segformer_1xb4-3k_oam-fair-224x224.py'

model = dict(
    type='DistillationSegmentor',
    distillation_weight=0.5,
    teacher=dict(
        config='{{ fileDirname }}/../baselines/'
               'efficientnet-lite0_fpn_1xb4-3k_oam-fair-blocks-224x224.py',
        checkpoint='work_dirs/efficientnet-lite0_fpn_1xb4-3k_oam-fair-blocks-224x224/'
                   'iter_3000.pth'))
splits = '{{ fileDirname }}/../splits/oam-fair-blocks_'
everywhere = dict(img_path='images', seg_map_path='labels')
train_dataloader = dict(dataset=dict(data_prefix=everywhere, ann_file=splits + 'train.txt'))
val_dataloader = dict(dataset=dict(data_prefix=everywhere, ann_file=splits + 'val.txt'))
test_dataloader = val_dataloader
