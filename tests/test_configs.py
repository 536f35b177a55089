"""Every config is what its name says and builds; one of each kind is trained and predicts."""

import copy
import functools
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
from published_layouts import LABELS, write_layout

import bhvit_seg.modules  # noqa: F401
from bhvit_seg.datasets.synthetic import write_dataset
from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import ARCHITECTURES
from bhvit_seg.models.layers import BinaryLayer
from bhvit_seg.native.export import check_exportable
from bhvit_seg.training.config_check import check_config

ROOT = Path(__file__).resolve().parents[1] / 'configs'
# `_base_` holds parts of experiments and `suites` lists of them; classifiers are tested with
# mmpretrain, in tests/models/classifiers.
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py')
                 if path.relative_to(ROOT).parts[0] not in ('_base_', 'suites', 'pretrain')
                 or path.parent.name == 'baselines')
BASELINES = [name for name in CONFIGS if 'baselines/' in name]
RECIPE = '1xb4-3k_{}-224x224.py'
TINY = 'bhvit/bhvit-tiny_{}segformer_' + RECIPE
NANO = 'bhvit/bhvit-nano_binary-ds_{}segformer_' + RECIPE
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
METHODS = {'bidense': "adaptive='image'", 'bidense-running': None}
# One config of each kind: every part of a name, network, head, data and loss occurs in it.
TRAINED = [TINY.format('', 'rs-lvf'), *(TINY.format(f'{row}_', 'rs-lvf') for row in ABLATIONS), *(
    f'bhvit/bhvit-{name}.py' for name in (
        'small_binary-ds_segformer_1xb8-20k_rs-lvf-448x448',
        'tiny_fp32_upernet_1xb8-20k_rs-lvf-camera-lidar-448x448',
        'tiny_upernet_8xb2-160k_ade20k-512x512', 'tiny_segformer_8xb2-160k_ade20k-512x512',
        'tiny_binary-ds_upernet_8xb4-50e_ade20k-480x480-center',
        'tiny_distill-staged_segformer_1xb4-3k_rs-lvf-224x224',
        'tiny_distill_segformer_1xb4-3k_dubai-224x224',
        'nano_binary-ds_distill-lite0_segformer_1xb32-1500_dubai-224x224',
        *(f'nano_binary-ds_{row}segformer_1xb4-3k_rs-lvf-224x224'
          for row in ('', 'distill-lite0_', 'distill-unlabelled_')))),
    *(NANO.format(f'{row}_', 'rs-lvf') for row in METHODS), *(
    f'{name}_' + RECIPE.format(data) for name, data in (
        *((f'suites/baselines/{network}', data) for network, data in (
            ('reactnet-18_segformer', 'rs-lvf'), ('bireal-18_fp32_segformer', 'dubai'),
            ('bnn-18_segformer', 'rs-lvf'), ('binary-vit-tiny_segformer', 'dubai'))),
        ('baselines/segformer-b0', 'rs-lvf'), ('baselines/efficientnet-lite0_fpn', 'oam-fair'),
        ('baselines/efficientnet-lite2_fpn', 'massachusetts-roads'))),
    *(f'bhvit/bhvit-{network}_segformer_1xb8-20k_{data}-448x448.py' for data in LABELS
      for network in ('tiny', 'nano_binary-ds')),
    'demo/bhvit-mini_segformer_1xb8-250_rs-lvf-224x224.py']


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


def words(name: str) -> list[str]:
    return Path(name.replace('-blocks', '')).stem.split('_')


def train_parts(cfg: Config) -> list[dict]:
    """The training set's config, or those of its parts with and without labels."""
    dataset = cfg.train_dataloader.dataset
    return [dataset.dataset, dataset.unlabelled] if 'unlabelled' in dataset else [dataset]


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


def test_every_kind_is_there_and_trained():
    assert len(CONFIGS) >= 85 and len(BASELINES) >= 26
    assert set(TRAINED) <= set(CONFIGS) and len(set(TRAINED)) == len(TRAINED)
    assert {word for name in CONFIGS for word in words(name)} == {
        word for name in TRAINED for word in words(name)}
    for key in ('type', 'backbone.type', 'decode_head.type', 'decode_head.loss_decode.type'):
        kinds, trained = ({str(flatten(_read(name).model.to_dict()).get(key)) for name in names}
                          for names in (CONFIGS, TRAINED))
        assert kinds == trained


@pytest.mark.parametrize('name', CONFIGS)
def test_config_says_what_its_name_says(name):
    cfg, parts = read(name), words(name)
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    network, kind = parts[0].rsplit('-', 1)
    if network in ('segformer', 'efficientnet'):
        assert (backbone.type, head.type) == {
            'segformer': ('MixVisionTransformer', 'SegformerHead'),
            'efficientnet': ('EfficientNetLite', 'TopDownHead')}[network]
    else:
        assert backbone.get('binary', True) == head.binary == ('fp32' not in parts)
        assert head.type == ('BinaryUPerHead' if 'upernet' in parts else 'BinarySegformerHead')
        assert backbone.type == {'bhvit': 'BHViT', 'binary-vit': 'BinaryViT'}.get(
            network, 'BinaryResNet')
    if network == 'efficientnet':
        assert backbone.arch == kind and (backbone.img_mean, backbone.img_std) == (
            cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std)
    if network == 'bhvit':
        assert kind == 'mini' or backbone.arch == kind
        assert (backbone.downsampling == 'binary') == ('binary-ds' in parts)
        assert (cfg.model.type == 'DistillationSegmentor') == ('distill' in name)
    if backbone.type == 'BinaryResNet':
        assert backbone.recipe == network

    side = int(name.removesuffix('.py').replace('-center', '').rsplit('x', 1)[1])
    assert tuple(cfg.crop_size) == tuple(cfg.model.data_preprocessor.size) == (side, side)
    batches, length = next(p for p in parts if 'xb' in p).split('-')
    assert cfg.train_dataloader.batch_size == int(batches.split('xb')[1])
    if length.endswith('e'):  # epochs of ADE20K's 20 210 training images, on eight GPUs
        steps = int(length[:-1]) * 20210 / (8 * cfg.train_dataloader.batch_size)
        assert abs(cfg.train_cfg.max_iters - steps) < 50
    else:
        assert cfg.train_cfg.max_iters == float(length.replace('k', 'e3'))
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    assert cfg.default_scope == 'mmseg' and cfg.custom_imports['imports'][0] == 'bhvit_seg.modules'
    assert len(cfg.model.data_preprocessor.mean) == backbone.get('in_channels', 3)
    for dataset in [*train_parts(cfg), cfg.val_dataloader.dataset, cfg.test_dataloader.dataset]:
        assert DATASETS.get(dataset.type) is not None
        for transform in dataset.pipeline:
            assert TRANSFORMS.get(transform.type) is not None, transform.type
    for hook in [*cfg.custom_hooks, *cfg.default_hooks.values()]:
        assert HOOKS.get(hook.type) is not None, hook.type
    assert check_config(cfg) == ([], [])


def check_binary(model, cfg: Config) -> None:
    """See that the binary layers are those that the config asks for."""
    head = cfg.model.decode_head
    assert {m.binary for m in model.modules() if isinstance(m, BinaryLayer)} == (
        {head.binary} if 'binary' in head else set())


@pytest.mark.parametrize('name', [name for name in CONFIGS if name not in TRAINED])
def test_config_builds(name):
    cfg = read(name)
    # BHViT is built without memory for its weights, which other networks do not allow.
    with torch.device('meta' if cfg.model.backbone.type == 'BHViT' else 'cpu'):
        check_binary(MODELS.build(cfg.model), cfg)


@pytest.mark.parametrize('base,row,keys,refusal', [
    *((TINY, row, {key}, refusal) for row, (key, refusal) in ABLATIONS.items()),
    *((NANO, row, {'model.backbone.adaptive', 'model.decode_head.adaptive'}, refusal)
      for row, refusal in METHODS.items())], ids=[*ABLATIONS, *METHODS])
def test_a_row_of_the_ablation_changes_one_thing_which_the_exporter_may_refuse(
        base, row, keys, refusal):
    name = base.format(f'{row}_', 'rs-lvf')
    assert {key for key in differences(name, base.format('', 'rs-lvf'))
            if not key.startswith('model.test_cfg.')} == keys
    model = read(name).model
    arch = ARCHITECTURES[model.backbone.arch]
    model.backbone.arch = dict(arch, depths=(1,) * 4, mlp_channels=arch['channels'])
    model = MODELS.build(model).eval()
    if refusal is None:
        return check_exportable(model)
    with pytest.raises(UserError) as caught:
        check_exportable(model)
    assert refusal in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('name', BASELINES)
def test_baselines_are_trained_like_bhvit(name):
    changed = differences(name, TINY.format('', words(name)[-1].removesuffix('-224x224')))
    allowed = ('model.backbone.', 'model.decode_head.', 'model.test_cfg.', 'segformer_b0.',
               'lite0_fpn.', 'optim_wrapper.optimizer.lr', 'custom_imports.')
    if '-blocks' in name:  # of the same images
        allowed += ('train_dataloader.dataset.', 'val_dataloader.dataset.',
                    'test_dataloader.dataset.', 'splits', 'everywhere.')
    forbidden = ('model.decode_head.num_classes', 'model.decode_head.loss_decode')
    assert changed and all(key.startswith(allowed) and not key.startswith(forbidden)
                           for key in changed)


@pytest.fixture(scope='module')
def sets(tmp_path_factory, ade20k_like) -> dict:
    """Generated sets of the kinds that configs read, by number of classes or by name."""
    roots = {classes: tmp_path_factory.mktemp(f'classes{classes}') for classes in (2, 5)}
    roots[150] = ade20k_like
    write_dataset(roots[2], n_train=2, n_val=1, size=(96, 128))
    shutil.copytree(roots[2] / 'annotations', roots[2] / 'labels')
    shutil.copytree(roots[2], roots[5], dirs_exist_ok=True)
    rng = np.random.default_rng(0)
    for path in (roots[5] / 'annotations').rglob('*.png'):
        cells = rng.choice([0, 1, 2, 3, 4, 255], (6, 8)).astype(np.uint8)
        assert cv2.imwrite(str(path), cells.repeat(16, 0).repeat(16, 1))
    for data in LABELS:
        roots[data] = tmp_path_factory.mktemp(data)
        write_layout(roots[data], data)
    return roots


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """A function that names a random checkpoint of a model's config."""

    @functools.cache
    def write(config: str) -> str:
        path = tmp_path_factory.mktemp('teacher') / 'random.pth'
        torch.save({'state_dict': MODELS.build(Config.fromfile(config).model).state_dict()}, path)
        return str(path)

    return write


@pytest.mark.parametrize('divisor', [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', TRAINED)
def test_config_trains_an_iteration_and_predicts(name, divisor, sets, teacher):
    """One iteration on two generated images as the config loads them, and their prediction."""
    cfg = read(name)
    size = (cfg.crop_size[0] // divisor,) * 2
    cfg.model.data_preprocessor.size = size
    classes = cfg.model.decode_head.num_classes
    if 'teacher' in cfg.model:
        cfg.model.teacher.checkpoint = teacher(cfg.model.teacher.config)
    labelled, *unlabelled = train_parts(cfg)
    data = words(name)[-1].removesuffix('-448x448')
    labelled['data_root'] = str(sets.get(data) or sets[classes])
    for part in (labelled, *unlabelled):
        for step in part.pipeline:
            if 'crop_size' in step:
                step.crop_size = size
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
    assert tuple(images.shape[2:]) == size
    with torch.no_grad():
        results = model(images, mode='predict')
    assert len(results) == 2
    for result in results:
        assert result.seg_logits.data.shape == (classes, *size)
        assert result.seg_logits.data.isfinite().all()
        assert result.pred_sem_seg.data.shape == (1, *size)
