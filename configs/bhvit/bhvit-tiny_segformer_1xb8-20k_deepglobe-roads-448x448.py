# DeepGlobe roads (I. Demir et al., CVPR Workshops 2018, arXiv 1805.06561): 1024 px at 0.5 m. The
# publisher's folders valid and test have no masks, so lists divide train (docs/datasets.md):
# DATA_ROOT/train/ID_sat.jpg and ID_mask.png, DATA_ROOT/{train,val}.txt with an ID a line. The
# publisher asks to threshold the masks at 128.
_base_ = './bhvit-tiny_segformer_1xb8-20k_rs-lvf-448x448.py'

data_root = 'data/deepglobe_roads'
ground_sampling_distance = 0.5
dataset = dict(
    data_root=data_root,
    data_prefix=dict(img_path='train', seg_map_path='train'),
    img_suffix='_sat.jpg',
    seg_map_suffix='_mask.png',
    mask_encoding='threshold')
train_dataloader = dict(dataset=dict(**dataset, ann_file='train.txt'))
val_dataloader = dict(dataset=dict(**dataset, ann_file='val.txt'))
test_dataloader = val_dataloader
