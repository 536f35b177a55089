# From labels alone, for any folder of classes and without a teacher's checkpoint.
_base_ = './bhvit-tiny_8xb64-751k_imagenet-224x224.py'

model = dict(
    _delete_=True,
    type='ImageClassifier',
    data_preprocessor=_base_.data_preprocessor,
    backbone={**_base_.model.backbone, 'arch': 'tiny'},
    neck=_base_.model.neck,
    head=_base_.model.head)
