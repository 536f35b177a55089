# Massachusetts roads (V. Mnih, Machine Learning for Aerial Image Labeling, 2013): the publisher's
# tiles of 1500 px at 1 m, in its folders (docs/datasets.md):
# DATA_ROOT/{train,valid,test}/sat/*.tiff and DATA_ROOT/{train,valid,test}/map/*.tif.
_base_ = './bhvit-tiny_segformer_1xb8-20k_rs-lvf-448x448.py'

data_root = 'data/mass_roads'
ground_sampling_distance = 1.0
dataset = dict(
    data_root=data_root, img_suffix='.tiff', seg_map_suffix='.tif', mask_encoding='threshold')
train_dataloader = dict(dataset=dict(
    **dataset, data_prefix=dict(img_path='train/sat', seg_map_path='train/map')))
val_dataloader = dict(dataset=dict(
    **dataset, data_prefix=dict(img_path='valid/sat', seg_map_path='valid/map')))
test_dataloader = dict(dataset=dict(
    **dataset, data_prefix=dict(img_path='test/sat', seg_map_path='test/map')))
