# Whether everything works, in about a minute on a CPU: a quarter of Tiny for a few iterations on
# synthetic scenes, which `bhvit-seg make-sample data/smoke --train 8 --val 2 --size 128` writes.
title = 'Smoke test'
data_root = 'data/smoke'
iterations = 4
size = (64, 64)
metrics = ('IoU.road', 'mIoU')
cfg_options = {
    'train_dataloader.batch_size': 2, 'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False, 'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False, 'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False, 'default_hooks.logger.interval': 1,
    'crop_size': (64, 64), 'model.data_preprocessor.size': (64, 64),
    'train_dataloader.dataset.pipeline.2.crop_size': (64, 64)
}

rows = [
    dict(
        name='twin',
        config='../demo/bhvit-mini_segformer_1xb8-250_rs-lvf-224x224.py',
        cfg_options={'model.backbone.binary': False, 'model.decode_head.binary': False}),
    dict(name='binary', config='../demo/bhvit-mini_segformer_1xb8-250_rs-lvf-224x224.py')
]
