# As rs-lvf_camera.py, and a raster of the same grid and name for every image:
#   DATA_ROOT/lidar/{train,val}/*.tif (or .npy, .png)
# The pipelines are those of rs-lvf_camera.py with `load_lidar` after the image: configs can not
# insert into a list of their base.
_base_ = './rs-lvf_camera.py'

crop_size = (448, 448)
load_lidar = dict(type='LoadLidarChannels', channels=None, fill=0.0)

# Camera red, green, blue, then each channel of the rasters (here: height above ground in metres),
# with the figures that `bhvit-seg check-dataset` prints; the backbone's in_channels counts them.
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53, 2.5],
    std=[58.395, 57.12, 57.375, 4.0])

train_pipeline = [
    dict(type='LoadAerialImage'),
    load_lidar,
    dict(type='LoadAerialAnnotations'),
    dict(
        type='RandomScaleCrop',
        crop_size=crop_size,
        ratio_range=(0.5, 2.0),
        favoured_classes=[1],
        favour_prob=0.5),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomRotFlip', rotate_prob=0.0, flip_prob=1.0),
    dict(
        type='CameraPhotoMetricDistortion',
        brightness_delta=16,
        contrast_range=(0.75, 1.25),
        saturation_range=(0.75, 1.25),
        hue_delta=9),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadAerialImage'),
    load_lidar,
    dict(type='LoadAerialAnnotations'),
    dict(type='PackSegInputs')
]
tta_pipeline = [
    dict(type='LoadAerialImage'),
    load_lidar,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=ratio, keep_ratio=True)
             for ratio in (0.75, 1.0, 1.25)],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='vertical')
            ],
            [dict(type='LoadAerialAnnotations')],
            [dict(type='PackSegInputs')]
        ])
]

train_dataloader = dict(
    dataset=dict(data_prefix=dict(lidar_path='lidar/train'), pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(data_prefix=dict(lidar_path='lidar/val'), pipeline=test_pipeline))
test_dataloader = val_dataloader
