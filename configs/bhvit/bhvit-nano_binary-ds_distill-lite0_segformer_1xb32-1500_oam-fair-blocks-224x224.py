# The recipe of the shipped model buildings-drone. All four places of the set train, as in the
# config of the teacher.
_base_ = [
    './bhvit-nano_binary-ds_segformer_1xb4-3k_oam-fair-224x224.py', '../_base_/recipe_1500.py'
]

model = dict(
    **_base_.recipe_model,
    teacher=dict(
        config='{{ fileDirname }}/../baselines/'
               'efficientnet-lite0_fpn_1xb4-3k_oam-fair-blocks-224x224.py',
        checkpoint='work_dirs/efficientnet-lite0_fpn_1xb4-3k_oam-fair-blocks-224x224/'
                   'iter_3000.pth'))
param_scheduler = _base_.recipe_schedule
train_cfg = dict(max_iters=1500)
splits = '{{ fileDirname }}/../splits/oam-fair-blocks_'
everywhere = dict(img_path='images', seg_map_path='labels')
train_dataloader = dict(
    batch_size=32, dataset=dict(data_prefix=everywhere, ann_file=splits + 'train.txt'))
val_dataloader = dict(dataset=dict(data_prefix=everywhere, ann_file=splits + 'val.txt'))
test_dataloader = val_dataloader
