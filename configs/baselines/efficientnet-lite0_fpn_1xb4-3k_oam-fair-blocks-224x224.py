# All four places of the set train; blocks of 4x4 tiles are kept out of each for validation (a block
# validates where the first byte of the SHA-1 of `<place>_<x // 4>_<y // 4>` is below 36).
_base_ = './efficientnet-lite0_fpn_1xb4-3k_oam-fair-224x224.py'

splits = '{{ fileDirname }}/../splits/oam-fair-blocks_'
everywhere = dict(img_path='images', seg_map_path='labels')
train_dataloader = dict(dataset=dict(data_prefix=everywhere, ann_file=splits + 'train.txt'))
val_dataloader = dict(dataset=dict(data_prefix=everywhere, ann_file=splits + 'val.txt'))
test_dataloader = val_dataloader
