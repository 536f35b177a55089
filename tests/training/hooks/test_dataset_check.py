"""The check before iteration 1."""

import logging
import shutil
from types import SimpleNamespace

import cv2
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

import bhvit_seg.datasets.rs_lvf  # noqa: F401
from bhvit_seg.errors import UserError
from bhvit_seg.training.hooks.dataset_check import DatasetCheckHook


@pytest.fixture
def scenes(tiny_data, tmp_path):
    init_default_scope('mmseg')
    return shutil.copytree(tiny_data, tmp_path / 'scenes')


@pytest.fixture
def runner(scenes, tmp_path):
    """What the hook asks a runner for."""

    def loader(split):
        return dict(dataset=dict(
            type='RSLVFDataset', data_root=str(scenes), test_mode=split == 'val', pipeline=[
                dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations')],
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')))

    cfg = Config(dict(
        model=dict(data_preprocessor=dict(mean=[0.] * 3), decode_head=dict(num_classes=2)),
        train_dataloader=loader('train'), val_dataloader=loader('val'),
        test_dataloader=loader('val')))
    dataset = SimpleNamespace(metainfo=dict(classes=('background', 'road')))
    return SimpleNamespace(
        cfg=cfg, iter=0, model=nn.Module(), work_dir=str(tmp_path / 'work'), val_loop=object(),
        logger=logging.getLogger('check'), train_dataloader=SimpleNamespace(dataset=dataset))


def test_good_data_pass_once_and_leave_a_report(runner, scenes, tmp_path):
    hook = DatasetCheckHook()
    hook.before_train(runner)
    text = (tmp_path / 'work' / 'dataset_check_train.txt').read_text()
    assert text.startswith('train: 6 images') and 'class_weight=' in text
    assert (tmp_path / 'work' / 'dataset_check_val.txt').is_file()
    next((scenes / 'annotations' / 'val').iterdir()).unlink()
    hook.before_val(runner)  # not looked at again in this run, nor when it is resumed
    runner.iter = 3
    hook = DatasetCheckHook()
    hook.before_train(runner)
    hook.before_val(runner)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_bad_data_end_the_run_with_one_sentence(runner, scenes, tmp_path, split):
    mask = scenes / 'annotations' / split / '0.png'
    cv2.imwrite(str(mask), cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) + 9)
    with pytest.raises(UserError, match='/0.png has ids out of range') as error:
        DatasetCheckHook().before_train(runner)
    assert '\n' not in str(error.value)
    report = tmp_path / 'work' / f'dataset_check_{split}.txt'
    assert str(report) in str(error.value) and '0.png' in report.read_text()
