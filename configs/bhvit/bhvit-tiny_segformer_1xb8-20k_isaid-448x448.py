# iSAID (S. Waqas Zamir et al., CVPR Workshops 2019, arXiv 1905.12886): objects of 15 classes in
# images of DOTA, in mmsegmentation's layout of tiles (docs/datasets.md):
# DATA_ROOT/img_dir/{train,val}/*.png and DATA_ROOT/ann_dir/{train,val}/*_instance_color_RGB.png. Id
# 0 is background, 255 is ignored.
_base_ = './bhvit-tiny_segformer_1xb8-20k_rs-lvf-448x448.py'

dataset_type = 'iSAIDDataset'
data_root = 'data/iSAID'
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(favoured_classes=[*range(1, 16)])  # any object

model = dict(decode_head=dict(num_classes=16))
train_dataloader = dict(dataset=dict(
    type=dataset_type, data_root=data_root, pipeline=train_pipeline,
    data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train')))
val_dataloader = dict(dataset=dict(
    type=dataset_type, data_root=data_root,
    data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val')))
test_dataloader = val_dataloader
