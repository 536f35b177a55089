# OpenEarthMap (J. Xia et al., WACV 2023, arXiv 2210.10732): land cover of 97 regions at 0.25 to 0.5
# m, in the publisher's folders (docs/datasets.md): DATA_ROOT/REGION/images/*.tif and labels/*.tif,
# DATA_ROOT/{train,val}.txt. Id 0, unknown, is ignored. The test images have no labels.
_base_ = './bhvit-tiny_segformer_1xb8-20k_rs-lvf-448x448.py'

dataset_type = 'OpenEarthMapDataset'
data_root = 'data/OpenEarthMap_wo_xBD'
dataset = dict(
    type=dataset_type, data_root=data_root, data_prefix=dict(img_path='', seg_map_path=''))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(favoured_classes=[])

model = dict(decode_head=dict(num_classes=8))
train_dataloader = dict(dataset=dict(
    **dataset, ann_file='train.txt', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, ann_file='val.txt'))
test_dataloader = val_dataloader
