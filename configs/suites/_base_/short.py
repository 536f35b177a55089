# A comparison for hours on a CPU: five minutes a run on one core. Given more, raise iterations
# first and crops to 224 next.
seeds = (0, 1)
iterations = 500
size = (224, 224)
cfg_options = {
    'crop_size': (128, 128),
    'model.data_preprocessor.size': (128, 128),
    'train_dataloader.dataset.pipeline.2.crop_size': (128, 128),
    'train_dataloader.num_workers': 1,
    # Of the configs' 3000 iterations, as all lengths that `iterations` shortens.
    'train_cfg.val_interval': 750,
    'default_hooks.checkpoint.interval': 1500,
    'custom_imports.imports': ['bhvit_seg.modules', 'benchmarks.baselines'],
    'default_hooks.weight_statistics': dict(
        type='WeightStatisticsHook', interval=10, figure_interval=250)
}
