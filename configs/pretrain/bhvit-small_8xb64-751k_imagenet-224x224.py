# BHViT-Small, full-precision downsampling, on ImageNet-1K by the paper's recipe: AdamW at 5e-4,
# cosine, no weight decay, no warm-up, 512 images a batch, taught by DeiT-Small with λ = 0.8, latent
# weights regularized with β = 0.1 in the last tenth. Its length is ours: 300 passes.
#   DATA_ROOT/{train,val}/<class>/*.JPEG
# The teacher's weights are those that mmpretrain publishes as deit-small_4xb256_in1k; another file
# is named with --cfg-options model.teacher.checkpoint=...
num_classes = 1000
max_iters = 751000
crop_size = (224, 224)
data_root = 'data/imagenet'

custom_imports = dict(
    imports=['bhvit_seg.modules', 'bhvit_seg.models.classifiers'],
    allow_failed_imports=False)
default_scope = 'mmpretrain'

data_preprocessor = dict(
    type='ClsDataPreprocessor',
    num_classes=num_classes,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)
model = dict(
    type='DistillationClassifier',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='mmseg.BHViT',
        arch='small',
        downsampling='full_precision',
        drop_path_rate=0.0,
        # The classifier sees the normalised map of the last stage alone.
        out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=num_classes,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)),
    teacher=dict(
        config=dict(
            type='ImageClassifier',
            data_preprocessor=data_preprocessor,
            backbone=dict(
                type='VisionTransformer', arch='deit-small', img_size=224, patch_size=16),
            head=dict(type='VisionTransformerClsHead', num_classes=num_classes, in_channels=384)),
        checkpoint='checkpoints/deit-small_in1k.pth'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    # Classes are the sorted names of the folders, for ImageNet those that everybody numbers by.
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix=dict(img_path='train'),
        with_label=True,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix=dict(img_path='val'),
        with_label=True,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.0))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=0, end=max_iters, T_max=max_iters,
         by_epoch=False)
]
train_cfg = dict(type='mmseg.ResumableTrainLoop', max_iters=max_iters, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmseg.ResumableCheckpointHook',
        by_epoch=False,
        interval=10000,
        max_keep_ckpts=2,
        save_best='accuracy/top1'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    weight_regularization=dict(type='WeightRegularizationHook', weight=0.1, begin=0.9))
custom_hooks = [dict(type='mmseg.NonFiniteLossHook')]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0, deterministic=False)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
