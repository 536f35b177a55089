"""A small synthetic set, and ways to build datasets on it."""

import shutil

import pytest
from mmengine import Config
from mmengine.registry import init_default_scope

from bhvit_seg.datasets.rs_lvf import RSLVFDataset
from bhvit_seg.datasets.synthetic import write_dataset

TRAIN = dict(img_path='images/train', seg_map_path='annotations/train')
WITH_LIDAR = dict(TRAIN, lidar_path='lidar/train')


@pytest.fixture(autouse=True)
def mmseg_scope():
    init_default_scope('mmseg')


@pytest.fixture(scope='session')
def written_set(tmp_path_factory):
    root = tmp_path_factory.mktemp('scenes')
    write_dataset(root, n_train=4, n_val=2, size=(64, 80), seed=1)
    return root


@pytest.fixture
def scenes(written_set, tmp_path):
    """A copy of the set that a test may damage."""
    return shutil.copytree(written_set, tmp_path / 'scenes')


@pytest.fixture
def build():
    """Build an RSLVFDataset on a folder, loading only unless told otherwise."""

    def build_dataset(root, lidar=False, **options):
        pipeline = [dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations')]
        if lidar:
            pipeline.insert(1, dict(type='LoadLidarChannels'))
        options = dict(data_prefix=WITH_LIDAR if lidar else TRAIN, pipeline=pipeline) | options
        return RSLVFDataset(data_root=str(root), **options)

    return build_dataset


@pytest.fixture
def base_config(repository):
    """Read a file of configs/_base_/datasets."""

    def read(name):
        return Config.fromfile(repository / 'configs' / '_base_' / 'datasets' / f'{name}.py')

    return read
