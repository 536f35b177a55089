"""Pre-training by imitation: killed and resumed, its stages, and what it leaves behind."""

from pathlib import Path

import cv2
import pytest
import torch
from equality import assert_same_training, die_at
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones import EfficientNetLite
from bhvit_seg.models.imitation import ImitationModel
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.config import load_config
from bhvit_seg.training.imitation import imitation_config, pretrain

BACKBONE = dict(
    type='BHViT', pretrain_img_size=32, arch=dict(
        depths=(1, 1, 1, 1), channels=(16, 32, 64, 128), mlp_channels=(16, 32, 64, 128),
        num_heads=(1, 1, 2, 4)))
SETTINGS = dict(iterations=6, batch_size=2, crop_size=32, weights_begin=0.5)


@pytest.fixture(scope='module')
def place(tmp_path_factory, tiny_data) -> Path:
    """A config, images, and a file of weights in the place of those of ImageNet."""
    folder = tmp_path_factory.mktemp('imitation')
    (folder / 'config.py').write_text(
        "custom_imports = dict(imports=['bhvit_seg.modules'])\ndefault_scope = 'mmseg'\n"
        'randomness = dict(seed=3)\n'
        "model = dict(type='EncoderDecoder', backbone=" + repr(BACKBONE) + ", decode_head=dict("
        "type='BinarySegformerHead', in_channels=[16, 32, 64, 128], in_index=[0, 1, 2, 3], "
        "channels=16, num_classes=2, loss_decode=dict(type='CrossEntropyLoss')), "
        "data_preprocessor=dict(type='MultiChannelSegDataPreProcessor', mean=[120., 110., 100.], "
        'std=[60., 55., 50.], bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(64, 64)))\n')
    (folder / 'images').symlink_to(tiny_data / 'images')
    torch.manual_seed(0)
    torch.save(EfficientNetLite().state_dict(), folder / 'teacher.pth')
    return folder


def run(place: Path, work_dir: Path, **options) -> Path:
    return pretrain(place / 'config.py', [place / 'images'], work_dir=work_dir, cfg_options={
        'model.teacher.init_cfg.checkpoint': str(place / 'teacher.pth'),
        'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
        'default_hooks.logger.interval': 1, 'log_level': 'ERROR'}, **{**SETTINGS, **options})


def test_weights_are_binary_from_their_share_on_and_serve_a_segmenter(place, tmp_path,
                                                                      monkeypatch):
    forward, seen = ImitationModel.forward, []
    monkeypatch.setattr(ImitationModel, 'forward', lambda self, *args, **kwargs: (
        seen.append(self.backbone.stages[0][0].mlp.fc1.binarize_weights),
        forward(self, *args, **kwargs))[1])
    weights = run(place, tmp_path / 'work')
    assert seen == [False] * 3 + [True] * 3
    monkeypatch.undo()
    killed = tmp_path / 'killed'
    die_at(4, ImitationModel, 'forward', lambda: run(place, killed))
    assert not (killed / 'iter_5.pth').exists()
    run(place, killed, resume=True)
    assert_same_training('iter_6.pth', tmp_path / 'work', killed)
    assert cv2.imread(str(killed / 'loss.png')).shape[2] == 3
    init_default_scope('mmseg')
    for file in (weights, tmp_path / 'work' / 'iter_6.pth'):
        backbone = MODELS.build({**BACKBONE, 'init_cfg': dict(
            type='Pretrained', checkpoint=str(file))})
        backbone.init_weights()
        state = load_checkpoint_safely(weights)['state_dict']
        assert all(torch.equal(value, state[f'backbone.{name}'])
                   for name, value in backbone.state_dict().items())
        assert len(state) == len(backbone.state_dict())


def test_a_backbone_of_more_channels_learns_on_colours(place):
    cfg = load_config(place / 'config.py')
    cfg.model.backbone.in_channels = 4
    for name in ('mean', 'std'):
        cfg.model.data_preprocessor[name].append(7.0)
    made = imitation_config(cfg, ['x'])
    assert made.model.backbone.in_channels == 3
    assert made.model.data_preprocessor.mean == made.model.teacher.img_mean == [120., 110., 100.]
    assert made.model.data_preprocessor.std == made.model.teacher.img_std == [60., 55., 50.]
    assert len(cfg.model.data_preprocessor.mean) == 4
    cfg.model.data_preprocessor.bgr_to_rgb = False
    with pytest.raises(UserError, match='bgr_to_rgb'):
        imitation_config(cfg, ['x'])


@pytest.mark.parametrize('options, words', [
    (dict(images=['nowhere']), 'nowhere'), (dict(teacher='resnet'), 'resnet'),
    (dict(iterations=0), 'iterations is 0'), (dict(batch_size=-1), 'batch size is -1')])
def test_wrong_settings_end_it_before_anything_is_written(options, words, place, tmp_path):
    with pytest.raises(UserError, match=words):
        pretrain(place / 'config.py', work_dir=tmp_path / 'work',
                 **{'images': [place / 'images'], **options})
    assert not (tmp_path / 'work').exists()
