# ADE20K in the protocol of the published tables of binary networks (BiDense, arXiv 2411.10346):
# trained on 480 crops of images of short side 520, scored on the centre 480 crop, of the label too,
# of images of short side 480. Its figures are NOT comparable with those of ade20k_512x512.py.
_base_ = './ade20k_512x512.py'

crop_size = (480, 480)
data_preprocessor = dict(size=crop_size)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='ResizeShortestEdge', scale=520, max_size=4160),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # Before the resize, unlike in mmseg's protocol: the label is resized and cropped as well.
    dict(type='LoadAnnotations'),
    dict(type='ResizeShortestEdge', scale=480, max_size=3840),
    dict(type='CenterCropEvaluation', crop_size=crop_size),
    dict(type='PackSegInputs')
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='ResizeShortestEdge', scale=480, max_size=3840),
    dict(type='CenterCropEvaluation', crop_size=crop_size),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal')
            ],
            [dict(type='PackSegInputs')]
        ])
]

train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
