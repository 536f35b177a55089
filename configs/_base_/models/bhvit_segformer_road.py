# Background and road; a loss that takes class weights beside ignored pixels.
_base_ = './bhvit_segformer.py'

model = dict(
    decode_head=dict(
        num_classes=2, loss_decode=dict(_delete_=True, type='WeightedCrossEntropyLoss')))
