_base_ = [
    '../bhvit/bhvit-tiny_segformer_1xb4-3k_massachusetts-roads-224x224.py',
    '../_base_/models/efficientnet_lite0_fpn.py'
]

model = dict(
    backbone=dict(
        _delete_=True,
        img_mean=_base_.data_preprocessor.mean,
        img_std=_base_.data_preprocessor.std,
        **_base_.lite0_fpn.backbone),
    decode_head=dict(
        _delete_=True,
        num_classes=_base_.model.decode_head.num_classes,
        loss_decode=_base_.model.decode_head.loss_decode,
        **_base_.lite0_fpn.decode_head))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
