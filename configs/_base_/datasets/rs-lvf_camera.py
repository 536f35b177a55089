# Aerial images with masks, background and road:
#   DATA_ROOT/images/{train,val}/*.png   DATA_ROOT/annotations/{train,val}/*.png
# `bhvit-seg check-dataset` prints means, deviations and class weights of another folder to paste.
dataset_type = 'RSLVFDataset'
data_root = 'data/rs_lvf'
# A multiple of 224 fills every 7x7 attention window at strides 4 to 32.
crop_size = (448, 448)
img_mean = [123.675, 116.28, 103.53]
img_std = [58.395, 57.12, 57.375]

data_preprocessor = dict(
    type='MultiChannelSegDataPreProcessor',
    mean=img_mean,
    std=img_std,
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=crop_size,
    # Images of other sides are mirrored at two borders, so that all maps keep their strides.
    test_cfg=dict(size_divisor=32))

train_pipeline = [
    dict(type='LoadAerialImage'),
    dict(type='LoadAerialAnnotations'),
    dict(
        type='RandomScaleCrop',
        crop_size=crop_size,
        ratio_range=(0.5, 2.0),
        favoured_classes=[1],
        favour_prob=0.5),
    # A flip in one half of the cases before RandomRotFlip, which always mirrors: all eight
    # orientations of the square, each as often.
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
    dict(type='LoadAerialAnnotations'),
    dict(type='PackSegInputs')
]
tta_pipeline = [
    dict(type='LoadAerialImage'),
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
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    # One image a batch: whole images of a folder differ in size.
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='PerClassMetric')
test_evaluator = val_evaluator
