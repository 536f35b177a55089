# What keeps latent weights from oscillating: the loss of the paper, β = 0.1 in the last tenth; the
# same in the second half, strong enough to matter beside the gradients of a short training, a
# thousand times larger; statistics of BatchNorm re-estimated at the end; the same with weights
# frozen that flip often.
_base_ = './_base_/short.py'

title = 'Oscillating weights, on EPFL road segmentation'
data_root = 'data/epfl_roads'
metrics = ('IoU.road', 'mIoU')

binary = '../bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'
unregularized = '../bhvit/bhvit-tiny_no-reg_segformer_1xb4-3k_rs-lvf-224x224.py'
batch_norm = dict(type='BatchNormReestimationHook', num_batches=50)
rows = [
    dict(name='without', config=unregularized),
    dict(name='loss', config=binary),
    dict(
        name='loss-1000-fold',
        config=binary,
        cfg_options={
            'default_hooks.weight_regularization.weight': 100.0,
            'default_hooks.weight_regularization.begin': 0.5
        }),
    dict(
        name='batch-norm',
        config=unregularized,
        cfg_options={'default_hooks.batch_norm': batch_norm}),
    dict(
        name='freezing',
        config=unregularized,
        cfg_options={
            'default_hooks.weight_freezing': dict(
                type='OscillationFreezingHook', threshold=(0.1, 0.01), begin=0.5),
            'default_hooks.batch_norm': batch_norm
        })
]
del binary, unregularized, batch_norm
