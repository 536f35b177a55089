# As rs-lvf_camera.py, and a raster of the same grid and name for every image:
#   DATA_ROOT/lidar/{train,val}/*.tif (or .npy, .png)
_base_ = './rs-lvf_camera.py'

# Height above ground in metres: one mean and deviation for each channel of the rasters, which
# `bhvit-seg check-dataset` prints. The backbone's in_channels is 3 more than their number.
lidar_mean = [2.5]
lidar_std = [4.0]

data_preprocessor = dict(mean=_base_.img_mean + lidar_mean, std=_base_.img_std + lidar_std)

load_lidar = dict(type='LoadLidarChannels', channels=None, fill=0.0)
train_pipeline = [_base_.train_pipeline[0], load_lidar, *_base_.train_pipeline[1:]]
test_pipeline = [_base_.test_pipeline[0], load_lidar, *_base_.test_pipeline[1:]]
tta_pipeline = [_base_.tta_pipeline[0], load_lidar, *_base_.tta_pipeline[1:]]

train_dataloader = dict(
    dataset=dict(data_prefix=dict(lidar_path='lidar/train'), pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(data_prefix=dict(lidar_path='lidar/val'), pipeline=test_pipeline))
test_dataloader = val_dataloader
