"""The dataset configs give batches that a model can take."""

import cv2
import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS, MODELS

import bhvit_seg.modules  # noqa: F401  registers

NAMES = ['rs-lvf_camera', 'rs-lvf_camera-lidar', 'ade20k_512x512', 'ade20k_480x480-center']


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def cfg(base_config, written_set, ade20k_like, name):
    cfg = base_config(name)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(
            ade20k_like if name.startswith('ade20k') else written_set)
    return cfg


def test_test_batch_is_scored_at_its_label(cfg, name):
    assert cfg.val_dataloader.sampler.type == 'DefaultSampler'
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == 'PerClassMetric'
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert len(dataset) == 2
    batch = MODELS.build(cfg.data_preprocessor)(pseudo_collate([dataset[0]]))
    sample = batch['data_samples'][0]
    assert sample.ori_shape == sample.gt_sem_seg.shape
    # The images that are written have 64×80 pixels.
    padding = (0, 0, 0, 0) if name.startswith('ade20k') else (0, 16, 0, 0)
    assert sample.get('img_padding_size', (0, 0, 0, 0)) == padding
    assert (sample.img_shape[0], sample.img_shape[1] + padding[1]) == batch['inputs'].shape[2:]
    if name == 'ade20k_480x480-center':
        assert sample.ori_shape == sample.img_shape == (480, 480)
    if name == 'ade20k_512x512':
        ids = cv2.imread(dataset.get_data_info(0)['seg_map_path'], cv2.IMREAD_UNCHANGED).astype(int)
        assert (sample.gt_sem_seg.data[0].numpy() == np.where(ids == 0, 255, ids - 1)).all()
