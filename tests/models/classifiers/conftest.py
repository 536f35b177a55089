"""Fixtures of the tests of classifiers, which need mmpretrain."""

import importlib.util
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope


@pytest.fixture(scope='session')
def mmpretrain():
    """mmpretrain; tests that ask for it are skipped where it is not installed."""
    if importlib.util.find_spec('mmpretrain') is None:
        pytest.skip('mmpretrain is not installed: pip install "bhvit_seg[pretrain]"')
    import bhvit_seg.compat.mmpretrain  # noqa: F401
    import bhvit_seg.models
    import bhvit_seg.models.classifiers  # noqa: F401

    return importlib.import_module('mmpretrain')


@pytest.fixture(scope='session')
def folders(tmp_path_factory) -> Path:
    """A folder as ImageNet's: six training and three validation images of three classes."""
    root = tmp_path_factory.mktemp('classes')
    rng = np.random.default_rng(0)
    for split, count in (('train', 2), ('val', 1)):
        for number, name in enumerate(('dark', 'middle', 'bright')):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 80, (72, 80, 3)) + 80 * number
                assert cv2.imwrite(str(root / split / name / f'{i}.png'), image.astype(np.uint8))
    return root


@pytest.fixture
def small_config(mmpretrain, repository, tmp_path, folders) -> Callable[..., Path]:
    """A function that writes a child of a config: three classes, a small network, five steps."""
    from mmpretrain.registry import MODELS

    def write(name: str, *lines: str) -> Path:
        base = repository / 'configs' / 'pretrain' / name
        arch = dict(_delete_=True, depths=(1, 1, 1, 1), channels=(32, 32, 64, 64),
                    mlp_channels=(64, 64, 128, 128), num_heads=(1, 1, 2, 2))
        loader = dict(num_workers=0, persistent_workers=False, dataset=dict(
            data_root=str(folders)))
        preprocessor = dict(num_classes=3)
        model = dict(data_preprocessor=preprocessor, backbone=dict(arch=arch),
                     head=dict(num_classes=3, in_channels=64))
        if Config.fromfile(str(base)).model.type == 'DistillationClassifier':
            whole = {key: value for key, value in arch.items() if key != '_delete_'}
            teacher = dict(
                type='ImageClassifier', data_preprocessor=dict(
                    type='ClsDataPreprocessor', num_classes=3, mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375], to_rgb=True),
                backbone=dict(type='mmseg.BHViT', arch=whole, out_indices=(3,), binary=False),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=64))
            init_default_scope('mmpretrain')
            torch.manual_seed(1)
            weights = tmp_path / 'teacher.pth'
            torch.save(MODELS.build(teacher).state_dict(), weights)
            model['teacher'] = dict(config=dict(_delete_=True, **teacher),
                                    checkpoint=str(weights))
        path = tmp_path / 'small.py'
        path.write_text('\n'.join([
            f'_base_ = {str(base)!r}', f'model = {model!r}',
            f'train_dataloader = {dict(loader, batch_size=2)!r}',
            f'val_dataloader = {dict(loader, batch_size=3)!r}',
            f'test_dataloader = {dict(loader, batch_size=3)!r}',
            'val_evaluator = dict(topk=(1,))', 'test_evaluator = dict(topk=(1,))',
            'train_cfg = dict(max_iters=5, val_interval=5)',
            'param_scheduler = [dict(type="CosineAnnealingLR", T_max=5, end=5, by_epoch=False)]',
            'default_hooks = dict(checkpoint=dict(interval=3), logger=dict(interval=1), '
            'weight_regularization=dict(begin=0.6))', *lines]) + '\n')
        return path

    return write
