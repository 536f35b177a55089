"""The dataset configs give batches that a model can take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS, MODELS

import bhvit_seg.models.data_preprocessor  # noqa: F401  registers
from bhvit_seg.datasets.synthetic import write_ade20k_like

NAMES = ['rs-lvf_camera', 'rs-lvf_camera-lidar', 'ade20k_512x512', 'ade20k_480x480-center']


@pytest.fixture(scope='module')
def ade20k(tmp_path_factory):
    root = tmp_path_factory.mktemp('ade20k')
    write_ade20k_like(root)
    return root


@pytest.fixture
def config(base_config, written_set, ade20k):

    def read(name):
        cfg = base_config(name)
        for split in ('train', 'val', 'test'):
            root = ade20k if name.startswith('ade20k') else written_set
            cfg[f'{split}_dataloader'].dataset.data_root = str(root)
        return cfg

    return read


def test_every_config_is_tested(repository):
    files = (repository / 'configs' / '_base_' / 'datasets').glob('*.py')
    assert sorted(path.stem for path in files) == sorted(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_training_batch(config, name):
    cfg = config(name)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = MODELS.build(cfg.data_preprocessor)(
        pseudo_collate([dataset[0], dataset[1]]), training=True)
    channels = 4 if 'lidar' in name else 3
    assert batch['inputs'].shape == (2, channels, *cfg.crop_size)
    assert torch.isfinite(batch['inputs']).all()
    classes = len(dataset.metainfo['classes'])
    assert classes == (150 if 'ade20k' in name else 2)
    for sample in batch['data_samples']:
        labels = np.unique(sample.gt_sem_seg.data.numpy())
        assert sample.gt_sem_seg.shape == cfg.crop_size
        assert ((labels < classes) | (labels == 255)).all()


@pytest.mark.parametrize('name', NAMES)
def test_test_batch_is_scored_at_its_label(config, name):
    cfg = config(name)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert len(dataset) == 2
    batch = MODELS.build(cfg.data_preprocessor)(pseudo_collate([dataset[0]]))
    sample = batch['data_samples'][0]
    assert sample.ori_shape == sample.gt_sem_seg.shape
    assert sample.img_shape == batch['inputs'].shape[2:]
    if name == 'ade20k_480x480-center':
        assert sample.ori_shape == sample.img_shape == (480, 480)


@pytest.mark.parametrize('name', NAMES)
def test_tta_gives_views_of_one_image(config, name):
    cfg = config(name)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    sample = DATASETS.build(cfg.test_dataloader.dataset)[0]
    views = len(sample['inputs'])
    assert views > 1 and len(sample['data_samples']) == views
    assert len({s.gt_sem_seg.shape for s in sample['data_samples']}) == 1
    assert all(s.ori_shape == s.gt_sem_seg.shape for s in sample['data_samples'])
    assert {s.flip_direction for s in sample['data_samples'] if s.flip}


@pytest.mark.parametrize('name', NAMES)
def test_loaders_are_those_of_the_recipe(config, name):
    cfg = config(name)
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert cfg.val_dataloader.sampler.type == 'DefaultSampler'
    assert cfg.train_dataloader.persistent_workers
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == 'PerClassMetric'


def test_ade20k_ids_are_those_of_sceneparsing(config):
    import cv2
    dataset = DATASETS.build(config('ade20k_512x512').test_dataloader.dataset)
    info = dataset.get_data_info(0)
    ids = cv2.imread(info['seg_map_path'], cv2.IMREAD_UNCHANGED).astype(int)
    labels = dataset[0]['data_samples'].gt_sem_seg.data[0].numpy()
    assert (labels == np.where(ids == 0, 255, ids - 1)).all()
