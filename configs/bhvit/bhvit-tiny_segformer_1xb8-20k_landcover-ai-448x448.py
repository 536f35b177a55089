# LandCover.ai v1 (A. Boguszewski et al., CVPR Workshops 2021, arXiv 2005.02264): orthophotos of
# Poland at 0.25 m (8 of 41 at 0.5 m), as the publisher's split.py cuts them to 512 px
# (docs/datasets.md): DATA_ROOT/output/*.jpg and *_m.png, DATA_ROOT/{train,val,test}.txt. The
# publisher gives no colours; these are TorchGeo's.
_base_ = './bhvit-tiny_segformer_1xb8-20k_rs-lvf-448x448.py'

data_root = 'data/landcover.ai'
ground_sampling_distance = 0.25
dataset = dict(
    data_root=data_root,
    data_prefix=dict(img_path='output', seg_map_path='output'),
    img_suffix='.jpg',
    seg_map_suffix='_m.png',
    metainfo=dict(
        classes=('background', 'building', 'woodland', 'water', 'road'),
        palette=[[0, 0, 0], [97, 74, 74], [38, 115, 0], [0, 197, 255], [207, 207, 207]]))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(favoured_classes=[1, 4])  # building and road

model = dict(decode_head=dict(num_classes=5))
train_dataloader = dict(dataset=dict(
    **dataset, ann_file='train.txt', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, ann_file='val.txt'))
test_dataloader = dict(dataset=dict(**dataset, ann_file='test.txt'))
