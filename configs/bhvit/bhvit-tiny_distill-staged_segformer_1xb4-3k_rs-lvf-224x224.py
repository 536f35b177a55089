# Begins from the twin that teaches it: 40 % of training with binary activations and real weights,
# 50 % with binary weights, regularized in the end, 10 % with frozen signs of the weights. Each
# stage begins with a learning rate of its own. Another checkpoint of the twin is named with
# --cfg-options model.teacher.checkpoint=... default_hooks.training_stages.warm_start=...
_base_ = './bhvit-tiny_distill_segformer_1xb4-3k_rs-lvf-224x224.py'

optim_wrapper = dict(constructor='LatentWeightOptimWrapperConstructor')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=100, by_epoch=False),
    dict(type='CosineRestartLR', periods=[1100, 1500, 300], restart_weights=[1.0, 1.0, 0.2],
         eta_min=0.0, begin=100, end=3000, by_epoch=False)
]
default_hooks = dict(
    weight_regularization=dict(begin=0.8),
    training_stages=dict(
        type='TrainingStagesHook',
        weights_begin=0.4,
        rest_begin=0.9,
        weight_decay=(5e-6, 0.0),
        warm_start=_base_.model.teacher.checkpoint))
