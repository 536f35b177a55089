_base_ = [
    '../bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py',
    '../_base_/models/segformer_b0.py'
]

model = dict(
    backbone=dict(_delete_=True, **_base_.segformer_b0.backbone),
    decode_head=dict(
        _delete_=True,
        num_classes=_base_.model.decode_head.num_classes,
        loss_decode=_base_.model.decode_head.loss_decode,
        **_base_.segformer_b0.decode_head),
    test_cfg=_base_.segformer_b0.test_cfg)
