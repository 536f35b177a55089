# What each part of the network is worth: the paper's table, a row for each part that is left out.
_base_ = './_base_/short.py'

title = 'The parts of BHViT-Tiny, on EPFL road segmentation'
data_root = 'data/epfl_roads'
metrics = ('IoU.road', 'mIoU')

rows = [
    dict(name=name, config=f'../bhvit/bhvit-tiny_{part}segformer_1xb4-3k_rs-lvf-224x224.py')
    for name, part in (
        ('all-parts', ''),
        ('without-shifts', 'no-shift_'),
        ('without-MSGDC', 'no-msgdc_'),
        ('without-MSMHA', 'no-msmha_'),
        ('without-QD', 'no-qd_'),
        ('without-regularization', 'no-reg_'),
        ('binary-downsampling', 'binary-ds_'),
        ('attention-only', 'attention-only_'),
        ('convolution-only', 'convolution-only_'))
]
