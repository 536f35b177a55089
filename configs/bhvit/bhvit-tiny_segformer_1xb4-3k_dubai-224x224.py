# Land cover of Dubai in five classes (Humans in the Loop and MBRSC, CC0) by the recipe for a CPU.
# DATA_ROOT/images/{train,val}/*.jpg and DATA_ROOT/annotations/{train,val}/*.png, 255 = unlabelled;
# its tiles overlap, so it is split by tile, not by image.
_base_ = './bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'

data_root = 'data/dubai_landcover'
metainfo = dict(
    classes=('building', 'land', 'road', 'vegetation', 'water'),
    palette=[[60, 16, 152], [132, 41, 246], [110, 193, 228], [254, 221, 58], [226, 169, 41]])
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(favoured_classes=[2])

model = dict(
    decode_head=dict(
        num_classes=5, loss_decode=dict(class_weight=[1.4, 0.5, 2.0, 1.7, 1.4])))
train_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
# Validation images are whole neighbourhoods, up to three megapixels.
train_cfg = dict(val_interval=1000)
