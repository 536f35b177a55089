"""The loss of imitation against its formula; what is saved and what is not."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import bhvit_seg.models  # noqa: F401
from bhvit_seg.errors import UserError

MINI = dict(type='BHViT', pretrain_img_size=64, drop_path_rate=0.0, arch=dict(
    depths=(1, 1, 1, 1), channels=(16, 32, 64, 128), mlp_channels=(16, 32, 64, 128),
    num_heads=(1, 1, 2, 4)))
LITE = dict(type='EfficientNetLite', arch='lite0')


def build(**options):
    model = MODELS.build({**dict(type='ImitationModel', backbone=MINI, teacher=LITE), **options})
    model.init_weights()
    return model


def samples(labels: torch.Tensor) -> list[SegDataSample]:
    return [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]


def test_loss_is_one_minus_the_cosine_to_centred_maps_where_there_is_data():
    model = build().eval()
    images, labels = torch.randn(2, 3, 64, 64), torch.full((2, 64, 64), 254)
    labels[0, :, :32] = 255
    losses = model(images, samples(labels), mode='loss')
    assert list(losses) == ['loss_map0', 'loss_map1', 'loss_map2', 'loss_map3']
    with torch.no_grad():
        mine, theirs = model.backbone(images), model.teacher.eval()(images)
        for index, (student, target) in enumerate(zip(mine, theirs)):
            adapter = model.losses[index].adapters[0]
            target = target - target.mean((0, 2, 3), keepdim=True)
            cosine = F.cosine_similarity(adapter(student), target, dim=1)
            half = cosine.shape[2] // 2
            counted = torch.cat([cosine[0, :, half:].flatten(), cosine[1].flatten()])
            torch.testing.assert_close(losses[f'loss_map{index}'], (1 - counted.mean()) / 4)


def test_the_teacher_learns_nothing_and_is_not_saved():
    model = build(map_weights=(0, 0, 0, 1.0))
    before = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    losses = model.train()(torch.randn(2, 3, 64, 64),
                           samples(torch.full((2, 64, 64), 254)), mode='loss')
    assert losses['loss_map0'] == 0 and losses['loss_map3'] > 0
    losses['loss_map3'].backward()
    assert all(torch.equal(value, before[name])
               for name, value in model.teacher.state_dict().items())
    assert {name.split('.')[0] for name in model.state_dict()} == {'backbone', 'losses'}
    assert not set(map(id, model.teacher.parameters())) & set(map(id, model.parameters()))
    assert model.backbone.patch_embed.projection.weight.grad.abs().sum() > 0


def test_a_batch_without_data_gives_zero_and_building_initialises_no_quantizer():
    model = build().eval()
    quantizers = [value for name, value in model.state_dict().items() if 'initialized' in name]
    assert quantizers and not any(quantizers)
    losses = model(torch.randn(1, 3, 64, 64), samples(torch.full((1, 64, 64), 255)), mode='loss')
    assert sum(losses.values()) == 0


@pytest.mark.parametrize('options,words', [
    (dict(map_weights=[1, 2]), '2 numbers'),
    (dict(teacher=dict(LITE, out_indices=(0, 1))), '2 maps')])
def test_maps_that_do_not_pair_up(options, words):
    with pytest.raises(UserError, match=words):
        build(**options)
