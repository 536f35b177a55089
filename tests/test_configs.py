"""Every config is what its name says and builds; one of each kind is trained and predicts."""

from __future__ import annotations

import copy
import functools
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, HOOKS, MODELS, TRANSFORMS

import bhvit_seg.models  # noqa: F401
import bhvit_seg.modules  # noqa: F401
import bhvit_seg.training.hooks  # noqa: F401
from bhvit_seg.datasets.synthetic import write_dataset
from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.efficientnet_lite import output_channels
from bhvit_seg.models.layers import BinaryLayer
from bhvit_seg.native.export import check_exportable

ROOT = Path(__file__).resolve().parents[1] / 'configs'
# `_base_` holds parts of experiments and `suites` lists of them; classifiers are tested with
# mmpretrain, in tests/models/classifiers.
ELSEWHERE = ('_base_', 'suites', 'pretrain')
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py')
                 if path.relative_to(ROOT).parts[0] not in ELSEWHERE)
BHVIT = [name for name in CONFIGS if name.startswith('bhvit/')]
BASELINES = [name for name in CONFIGS if name.startswith('baselines/')]

OURS = ('BHViT', 'BinaryResNet', 'BinaryViT')
TINY_RS_LVF = 'bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'
# What each row of the ablation changes, and in which words the exporter refuses it.
ABLATIONS = {
    'no-shift': ('model.backbone.shifts', 'shifts=False'),
    'no-msgdc': ('model.backbone.convolution', "convolution='multi_scale'"),
    'no-msmha': ('model.backbone.attention_span', "attention_span='global'"),
    'no-qd': ('model.backbone.attention', "attention='qd'"),
    'no-reg': ('default_hooks.weight_regularization.weight', None),
    'binary-ds': ('model.backbone.downsampling', None),
    'attention-only': ('model.backbone.token_mixers', "token_mixers='hybrid'"),
    'convolution-only': ('model.backbone.token_mixers', "token_mixers='hybrid'"),
}
# One config of each kind: every part of a name, network, head, data and loss occurs in it.
TRAINED = [TINY_RS_LVF, *(f'bhvit/bhvit-{name}.py' for name in (
    'small_binary-ds_segformer_1xb8-20k_rs-lvf-448x448',
    'tiny_fp32_upernet_1xb8-20k_rs-lvf-camera-lidar-448x448',
    'tiny_upernet_8xb2-160k_ade20k-512x512',
    'tiny_segformer_8xb2-160k_ade20k-512x512',
    'tiny_binary-ds_upernet_8xb4-50e_ade20k-480x480-center',
    'tiny_distill-staged_segformer_1xb4-3k_rs-lvf-224x224',
    'tiny_distill_segformer_1xb4-3k_dubai-224x224',
    *(f'tiny_{row}_segformer_1xb4-3k_rs-lvf-224x224' for row in ABLATIONS))), *(
    f'baselines/{name}_1xb4-3k_{data}-224x224.py' for name, data in (
        ('reactnet-18_segformer', 'rs-lvf'), ('bireal-18_fp32_segformer', 'dubai'),
        ('bnn-18_segformer', 'rs-lvf'), ('binary-vit-tiny_segformer', 'dubai'),
        ('segformer-b0', 'rs-lvf'), ('efficientnet-lite0_fpn', 'oam-fair'),
        ('efficientnet-lite2_fpn', 'massachusetts-roads'))),
    *(f'bhvit/bhvit-nano_binary-ds_{row}segformer_1xb4-3k_rs-lvf-224x224.py'
      for row in ('', 'distill-lite0_', 'distill-unlabelled_')),
    'demo/bhvit-mini_segformer_1xb8-500_rs-lvf-224x224.py']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    np.random.seed(0)


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(str(ROOT / name))


def read(name: str) -> Config:
    return copy.deepcopy(_read(name))


def ablation(row: str) -> str:
    return TINY_RS_LVF.replace('_segformer', f'_{row}_segformer')


def parents(path: Path) -> set[Path]:
    """A config and all that it inherits from."""
    found = {path.resolve()}
    base = Config._get_base_files(str(path)) if '_base_' in path.read_text() else []
    for parent in base:
        found |= parents(path.parent / parent)
    return found


def test_all_configs_were_found():
    assert len(BHVIT) >= 58 and len(BASELINES) == 26
    walked = {os.path.join(folder, name) for folder, _, names in os.walk(ROOT)
              for name in names if name.endswith('.py')}
    elsewhere = {path for path in walked
                 if os.path.relpath(path, ROOT).split(os.sep)[0] in ELSEWHERE}
    assert walked - elsewhere == {str(ROOT / name) for name in CONFIGS}
    assert len([path for path in walked if os.path.dirname(path) == str(ROOT / 'pretrain')]) == 5


def test_every_kind_is_trained():
    assert set(TRAINED) <= set(CONFIGS) and len(set(TRAINED)) == len(TRAINED)
    words = {word for name in CONFIGS for word in Path(name).stem.split('_')}
    assert words <= {word for name in TRAINED for word in Path(name).stem.split('_')}
    for key in ('type', 'backbone.type', 'decode_head.type', 'decode_head.loss_decode.type'):
        kinds = {str(flatten(read(name).model.to_dict()).get(key)) for name in CONFIGS}
        assert kinds == {str(flatten(read(name).model.to_dict()).get(key)) for name in TRAINED}


def test_every_part_belongs_to_an_experiment():
    parts = {path.resolve() for path in (ROOT / '_base_').rglob('*.py')}
    assert len(parts) >= 12
    used = set().union(*(parents(path) for path in ROOT.rglob('*.py')
                         if '_base_' not in path.relative_to(ROOT).parts))
    assert not parts - used


def test_all_combinations_that_the_readme_promises_are_there():
    for arch in ('tiny', 'small'):
        for kind in ('', 'binary-ds_', 'fp32_'):
            for head in ('upernet', 'segformer'):
                for data in ('ade20k-512x512', 'rs-lvf-448x448', 'rs-lvf-camera-lidar-448x448'):
                    names = [name for name in BHVIT if name.startswith(
                        f'bhvit/bhvit-{arch}_{kind}{head}_') and name.endswith(f'_{data}.py')]
                    assert len(names) == 1, (arch, kind, head, data)
    for data in ('rs-lvf', 'dubai'):
        for network in ('reactnet-18', 'bireal-18', 'bnn-18', 'binary-vit-tiny'):
            for kind in ('', 'fp32_'):
                assert f'baselines/{network}_{kind}segformer_1xb4-3k_{data}-224x224.py' in BASELINES
        assert f'baselines/segformer-b0_1xb4-3k_{data}-224x224.py' in BASELINES
    for data in ('rs-lvf', 'dubai', 'oam-fair', 'massachusetts-roads'):
        for network in ('bhvit/bhvit-tiny_segformer', 'bhvit/bhvit-nano_binary-ds_segformer',
                        'baselines/efficientnet-lite0_fpn', 'baselines/efficientnet-lite2_fpn'):
            assert f'{network}_1xb4-3k_{data}-224x224.py' in CONFIGS
    for row in ABLATIONS:
        assert ablation(row) in BHVIT


@pytest.mark.parametrize('name', [n for n in CONFIGS if n not in BASELINES])
def test_config_of_bhvit_says_what_its_name_says(name):
    cfg = read(name)
    parts = Path(name).stem.split('_')
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    size = parts[0].split('-')[1]
    assert backbone.type == 'BHViT' and (size == 'mini' or backbone.arch == size)
    assert backbone.binary == head.binary == ('fp32' not in parts)
    assert (backbone.downsampling == 'binary') == ('binary-ds' in parts)
    assert head.type == {'upernet': 'BinaryUPerHead', 'segformer': 'BinarySegformerHead'}[
        next(p for p in parts if p in ('upernet', 'segformer'))]
    assert (cfg.model.type == 'DistillationSegmentor') == any('distill' in p for p in parts)


@pytest.mark.parametrize('name', BASELINES)
def test_config_of_a_baseline_says_what_its_name_says(name):
    cfg = read(name)
    parts = Path(name).stem.split('_')
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    if parts[0] == 'segformer-b0':
        assert (backbone.type, head.type) == ('MixVisionTransformer', 'SegformerHead')
        return
    if parts[0].startswith('efficientnet'):
        assert (backbone.type, head.type) == ('EfficientNetLite', 'TopDownHead')
        assert parts[0] == f'efficientnet-{backbone.arch}'
        assert tuple(head.in_channels) == output_channels(backbone.arch)
        assert (backbone.img_mean, backbone.img_std) == (
            cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std)
        return
    assert head.type == 'BinarySegformerHead'
    assert backbone.get('binary', True) == head.binary == ('fp32' not in parts)
    if parts[0] == 'binary-vit-tiny':
        assert backbone.type == 'BinaryViT'
    else:
        assert backbone.type == 'BinaryResNet' and parts[0] == f'{backbone.recipe}-18'


@pytest.mark.parametrize('name', CONFIGS)
def test_recipe_says_what_its_name_says(name):
    cfg = read(name)
    stem = Path(name).stem
    side = int(stem.replace('-center', '').rsplit('x', 1)[1])
    assert tuple(cfg.crop_size) == tuple(cfg.model.data_preprocessor.size) == (side, side)
    schedule = next(p for p in stem.split('_') if 'xb' in p)
    assert cfg.train_dataloader.batch_size == int(schedule.split('-')[0].split('xb')[1])
    length = schedule.split('-')[1]
    if length.endswith('e'):  # epochs of ADE20K's 20 210 training images, on eight GPUs
        steps = int(length[:-1]) * 20210 / (8 * cfg.train_dataloader.batch_size)
        assert abs(cfg.train_cfg.max_iters - steps) < 50
    else:
        assert cfg.train_cfg.max_iters == float(length.replace('k', 'e3'))
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    assert cfg.default_scope == 'mmseg' and cfg.custom_imports['imports'] == ['bhvit_seg.modules']
    assert len(cfg.model.data_preprocessor.mean) == cfg.model.backbone.get('in_channels', 3)
    for dataset in [*train_parts(cfg), cfg.val_dataloader.dataset, cfg.test_dataloader.dataset]:
        assert DATASETS.get(dataset.type) is not None
        for transform in dataset.pipeline:
            assert TRANSFORMS.get(transform.type) is not None, transform.type
    for hook in [*cfg.custom_hooks, *cfg.default_hooks.values()]:
        assert HOOKS.get(hook.type) is not None, hook.type


def check_binary(model, cfg: Config) -> None:
    """See that the binary layers are those that the config asks for."""
    binary = {m.binary for m in model.modules() if isinstance(m, BinaryLayer)}
    assert binary == ({cfg.model.decode_head.binary} if cfg.model.backbone.type in OURS else set())


@pytest.mark.parametrize('name', [name for name in CONFIGS if name not in TRAINED])
def test_config_builds(name):
    cfg = read(name)
    # BHViT is built without memory for its weights, which other networks do not allow.
    with torch.device('meta' if cfg.model.backbone.type == 'BHViT' else 'cpu'):
        check_binary(MODELS.build(cfg.model), cfg)


def flatten(node, prefix='') -> dict[str, object]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name, child in node.items()
            for key, value in flatten(child, f'{prefix}.{name}' if prefix else name).items()}


def differences(name: str, other: str) -> set[str]:
    """Dotted keys in which two configs differ."""
    ours, theirs = (flatten(read(config).to_dict()) for config in (name, other))
    return {key for key in {*ours, *theirs}
            if ours.get(key, 'absent') != theirs.get(key, 'absent')}


@pytest.mark.parametrize('row', ABLATIONS)
def test_a_row_of_the_ablation_changes_one_thing(row):
    changed = {key for key in differences(ablation(row), TINY_RS_LVF)
               if not key.startswith('model.test_cfg.')}
    assert changed == {ABLATIONS[row][0]}


@pytest.mark.parametrize('name', BASELINES)
def test_baselines_are_trained_like_bhvit(name):
    data = Path(name).stem.split('_')[-1].removesuffix('-224x224').split('k_')[-1]
    changed = differences(name, TINY_RS_LVF.replace('rs-lvf', data))
    assert changed and all(key.startswith(('model.backbone.', 'model.decode_head.',
                                           'model.test_cfg.', 'segformer_b0.', 'lite0_fpn.',
                                           'optim_wrapper.optimizer.lr'))
                           for key in changed)
    assert not {'model.decode_head.num_classes'} & changed
    assert not any(key.startswith('model.decode_head.loss_decode') for key in changed)


def shrunken(name: str):
    """The model of a config with one block a stage, so that building takes no time."""
    model = read(name).model
    if model.backbone.type == 'BHViT':
        model.backbone.arch = dict(depths=(1, 1, 1, 1), channels=(64, 128, 256, 512),
                                   mlp_channels=(64, 128, 256, 512), num_heads=(1, 1, 4, 8))
    return MODELS.build(model).eval()


@pytest.mark.parametrize('row', ABLATIONS)
def test_exporter_refuses_what_the_packed_format_lacks(row):
    words = ABLATIONS[row][1]
    if words is None:
        return check_exportable(shrunken(ablation(row)))
    with pytest.raises(UserError) as caught:
        check_exportable(shrunken(ablation(row)))
    assert words in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('network,words', [
    ('reactnet-18_segformer', 'BinaryResNet'), ('binary-vit-tiny_segformer', 'BinaryViT'),
    ('segformer-b0', 'MixVisionTransformer'), ('efficientnet-lite0_fpn', 'EfficientNetLite')])
def test_exporter_refuses_baselines(network, words):
    with pytest.raises(UserError, match=f'{words}: only BHViT can be packed'):
        check_exportable(shrunken(f'baselines/{network}_1xb4-3k_rs-lvf-224x224.py'))


# ------------------------------------------------------------------------- training an iteration


@pytest.fixture(scope='module')
def sets(tmp_path_factory, ade20k_like) -> dict[int, Path]:
    """Generated sets of the kinds that configs read, by their number of classes."""
    roots = {classes: tmp_path_factory.mktemp(f'classes{classes}') for classes in (2, 5)}
    roots[150] = ade20k_like
    write_dataset(roots[2], n_train=2, n_val=1, size=(96, 128))
    shutil.copytree(roots[2] / 'annotations', roots[2] / 'labels')
    shutil.copytree(roots[2] / 'images', roots[5] / 'images')
    rng = np.random.default_rng(0)
    masks = sorted((roots[2] / 'annotations').rglob('*.png'))
    assert len(masks) == 3
    for path in masks:
        target = roots[5] / path.relative_to(roots[2])
        target.parent.mkdir(parents=True, exist_ok=True)
        cells = rng.choice([0, 1, 2, 3, 4, 255], (6, 8)).astype(np.uint8)
        assert cv2.imwrite(str(target), cells.repeat(16, 0).repeat(16, 1))
    return roots


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """A function that names a random checkpoint of a model's config."""
    written = {}

    def write(config: str) -> str:
        if config not in written:
            path = tmp_path_factory.mktemp('teacher') / 'random.pth'
            torch.save({'state_dict': MODELS.build(Config.fromfile(config).model).state_dict()},
                       path)
            written[config] = str(path)
        return written[config]

    return write


def train_parts(cfg: Config) -> list[dict]:
    """The training set's config, or those of its parts with and without labels."""
    dataset = cfg.train_dataloader.dataset
    return [dataset.dataset, dataset.unlabelled] if 'unlabelled' in dataset else [dataset]


def with_crop(cfg: Config, divisor: int) -> Config:
    """Divide the crop that a config trains on."""
    side = cfg.crop_size[0] // divisor
    for dataset in train_parts(cfg):
        for step in dataset.pipeline:
            if 'crop_size' in step:
                step.crop_size = (side, side)
    cfg.model.data_preprocessor.size = (side, side)
    return cfg


def train_and_predict(cfg: Config, sets, teacher) -> None:
    """One iteration on two generated images as the config loads them, and their prediction."""
    classes = cfg.model.decode_head.num_classes
    if 'teacher' in cfg.model:
        cfg.model.teacher.checkpoint = teacher(cfg.model.teacher.config)
    labelled, *unlabelled = train_parts(cfg)
    labelled['data_root'] = str(sets[classes])
    for part in unlabelled:
        part.images = [str(sets[classes] / 'images' / 'train')]
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == (4 if unlabelled else 2)
    assert len(dataset.metainfo['classes']) == classes
    batch = pseudo_collate([dataset[0], dataset[len(dataset) - 1]])

    model = MODELS.build(cfg.model)
    check_binary(model, cfg)
    classifier = model.decode_head.conv_seg.weight.detach().clone()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    losses = model.train().train_step(batch, optimizer)
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    stepped = set(optimizer.optimizer.state)
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p not in stepped]
    assert not torch.equal(model.decode_head.conv_seg.weight, classifier)

    images = model.eval().data_preprocessor(batch, True)['inputs']
    size = tuple(cfg.model.data_preprocessor.size)
    assert tuple(images.shape[2:]) == size
    with torch.no_grad():
        results = model(images, mode='predict')
    assert len(results) == 2
    for result in results:
        assert result.seg_logits.data.shape == (classes, *size)
        assert result.seg_logits.data.isfinite().all()
        assert result.pred_sem_seg.data.shape == (1, *size)


@pytest.mark.parametrize('name', TRAINED)
def test_config_trains_an_iteration_and_predicts(name, sets, teacher):
    train_and_predict(with_crop(read(name), 4), sets, teacher)


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAINED)
def test_config_trains_an_iteration_at_its_own_crop(name, sets, teacher):
    train_and_predict(read(name), sets, teacher)
