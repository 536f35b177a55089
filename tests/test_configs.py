"""Every config of the house: it builds, and computes logits and losses of the right shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, HOOKS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample

import bhvit_seg.datasets  # noqa: F401
import bhvit_seg.hooks  # noqa: F401
import bhvit_seg.models  # noqa: F401
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear

FOLDER = Path(__file__).resolve().parents[1] / 'configs' / 'bhvit'
CONFIGS = sorted(path.name for path in FOLDER.glob('*.py'))


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


def test_all_combinations_that_the_readme_promises_are_there():
    assert len(CONFIGS) >= 44
    for arch in ('tiny', 'small'):
        for kind in ('', 'binary-ds_', 'fp32_'):
            for head in ('upernet', 'segformer'):
                for data in ('ade20k-512x512', 'rs-lvf-448x448', 'rs-lvf-camera-lidar-448x448'):
                    names = [name for name in CONFIGS if name.startswith(
                        f'bhvit-{arch}_{kind}{head}_') and name.endswith(f'_{data}.py')]
                    assert len(names) == 1, (arch, kind, head, data)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_says_what_its_name_says(name):
    cfg = Config.fromfile(str(FOLDER / name))
    parts = name[:-3].split('_')
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    assert backbone.arch == parts[0].split('-')[1]
    assert backbone.binary == head.binary == ('fp32' not in parts)
    assert (backbone.downsampling == 'binary') == ('binary-ds' in parts)
    assert head.type == {'upernet': 'BinaryUPerHead', 'segformer': 'BinarySegformerHead'}[
        next(p for p in parts if p in ('upernet', 'segformer'))]
    side = int(name[:-3].replace('-center', '').rsplit('x', 1)[1])
    assert tuple(cfg.crop_size) == tuple(cfg.model.data_preprocessor.size) == (side, side)
    schedule = next(p for p in parts if 'xb' in p)
    assert cfg.train_dataloader.batch_size == int(schedule.split('-')[0].split('xb')[1])
    length = schedule.split('-')[1]
    if length.endswith('k'):
        assert cfg.train_cfg.max_iters == 1000 * int(length[:-1])
    else:  # epochs of ADE20K's 20 210 training images, on eight GPUs
        steps = int(length[:-1]) * 20210 / (8 * cfg.train_dataloader.batch_size)
        assert abs(cfg.train_cfg.max_iters - steps) < 50
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    assert cfg.default_scope == 'mmseg' and 'bhvit_seg.models' in cfg.custom_imports['imports']
    assert len(cfg.model.data_preprocessor.mean) == backbone.in_channels
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert DATASETS.get(loader.dataset.type) is not None
        for transform in loader.dataset.pipeline:
            assert TRANSFORMS.get(transform.type) is not None, transform.type
    for hook in [*cfg.custom_hooks, *cfg.default_hooks.values()]:
        assert HOOKS.get(hook.type) is not None, hook.type


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds_and_trains_a_step(name):
    cfg = Config.fromfile(str(FOLDER / name))
    model = MODELS.build(cfg.model).train()
    layers = [m for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    assert layers and all(layer.binary == cfg.model.backbone.binary for layer in layers)
    size = (32, 64)
    labels = torch.randint(0, cfg.model.decode_head.num_classes, (1, *size))
    samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size),
                             gt_sem_seg=PixelData(data=labels)) for _ in range(2)]
    images = torch.randn(2, cfg.model.backbone.in_channels, *size)
    losses = model(images, samples, mode='loss')
    total = sum(value for key, value in losses.items() if 'loss' in key)
    total.backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert total.isfinite() and not unused
    with torch.no_grad():
        logits = model.eval()(images, mode='tensor')
    assert logits.shape[:2] == (2, cfg.model.decode_head.num_classes)
