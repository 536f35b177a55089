# Half of each batch are images without labels, of which the teacher alone says what they show:
# folders of images, or rasters, which are cut into tiles. The student sees them distorted.
_base_ = './bhvit-nano_binary-ds_distill-lite0_segformer_1xb4-3k_rs-lvf-224x224.py'

model = dict(student_distortion=dict(type='StrongDistortion'))
train_dataloader = dict(dataset=dict(
    _delete_=True,
    type='PartlyLabelledDataset',
    share=0.5,
    dataset=_base_.train_dataloader.dataset,
    unlabelled=dict(
        type='UnlabelledDataset',
        images=['data/unlabelled'],
        pipeline=[dict(type='LoadUnlabelledImage'), *_base_.train_pipeline[2:]])))
