# LoveDA (J. Wang et al., NeurIPS 2021, arXiv 2110.08733): land cover of cities and villages in
# China at 0.3 m, in mmsegmentation's layout (docs/datasets.md says how to prepare each data set):
# DATA_ROOT/img_dir/{train,val}/*.png and DATA_ROOT/ann_dir/{train,val}/*.png. Id 0, without data,
# is ignored; LoveDADataset makes 1..7 the labels 0..6.
_base_ = './bhvit-tiny_segformer_1xb8-20k_rs-lvf-448x448.py'

dataset_type = 'LoveDADataset'
data_root = 'data/loveDA'
ground_sampling_distance = 0.3
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(favoured_classes=[])

model = dict(decode_head=dict(num_classes=7))
train_dataloader = dict(dataset=dict(
    type=dataset_type, data_root=data_root, pipeline=train_pipeline,
    data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train')))
val_dataloader = dict(dataset=dict(
    type=dataset_type, data_root=data_root,
    data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val')))
test_dataloader = val_dataloader
