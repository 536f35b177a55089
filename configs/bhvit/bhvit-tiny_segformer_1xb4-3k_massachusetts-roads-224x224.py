# Roads at 1 m (MassGIS, public domain; V. Mnih, Machine Learning for Aerial Image Labeling, 2013).
# DATA_ROOT/images/{train,val}/*.jpg and DATA_ROOT/labels/{train,val}/*.png.
_base_ = './bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'

data_root = 'data/massachusetts_roads'
ground_sampling_distance = 1.0
model = dict(decode_head=dict(loss_decode=dict(class_weight=[1.0, 3.0])))
train_dataloader = dict(dataset=dict(
    data_root=data_root,
    data_prefix=dict(img_path='images/train', seg_map_path='labels/train')))
val_dataloader = dict(dataset=dict(
    data_root=data_root, data_prefix=dict(img_path='images/val', seg_map_path='labels/val')))
test_dataloader = val_dataloader
