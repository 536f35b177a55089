# Buildings from drones at about 7 cm (OpenAerialMap, CC BY 4.0; labels OpenStreetMap, ODbL).
# DATA_ROOT/images/{train,val}/*.jpg and DATA_ROOT/labels/{train,val}/*.png; three places train, the
# fourth validates.
_base_ = './bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'

data_root = 'data/oam_fair'
ground_sampling_distance = 0.07
metainfo = dict(classes=('background', 'building'), palette=[[70, 90, 60], [230, 60, 50]])
train_dataloader = dict(dataset=dict(
    data_root=data_root, metainfo=metainfo,
    data_prefix=dict(img_path='images/train', seg_map_path='labels/train')))
val_dataloader = dict(dataset=dict(
    data_root=data_root, metainfo=metainfo,
    data_prefix=dict(img_path='images/val', seg_map_path='labels/val')))
test_dataloader = val_dataloader
