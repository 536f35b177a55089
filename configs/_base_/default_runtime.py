custom_imports = dict(
    imports=['bhvit_seg.modules'],
    allow_failed_imports=False)
default_scope = 'mmseg'

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0, deterministic=False)

custom_hooks = [dict(type='DatasetCheckHook'), dict(type='NonFiniteLossHook')]

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'INFO'

load_from = None
resume = False
tta_model = dict(type='SegTTAModel')
