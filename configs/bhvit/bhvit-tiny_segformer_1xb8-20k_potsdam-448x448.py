# ISPRS Potsdam: six classes of a city at 5 cm, red, green, blue, in mmsegmentation's layout of
# tiles (docs/datasets.md): DATA_ROOT/img_dir/{train,val}/*.png and
# DATA_ROOT/ann_dir/{train,val}/*.png. Id 0, the eroded boundaries, is ignored; PotsdamDataset makes
# 1..6 the labels 0..5.
_base_ = './bhvit-tiny_segformer_1xb8-20k_rs-lvf-448x448.py'

dataset_type = 'PotsdamDataset'
data_root = 'data/potsdam'
ground_sampling_distance = 0.05
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(favoured_classes=[4])  # car

model = dict(decode_head=dict(num_classes=6))
train_dataloader = dict(dataset=dict(
    type=dataset_type, data_root=data_root, pipeline=train_pipeline,
    data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train')))
val_dataloader = dict(dataset=dict(
    type=dataset_type, data_root=data_root,
    data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val')))
test_dataloader = val_dataloader
