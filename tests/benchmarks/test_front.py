"""Accuracy over time of trained networks: the scores are those of torch, in whatever engine."""

import csv
import json

import numpy as np
import pytest
import torch
from native.segmentors import write_experiment
from PIL import Image

import benchmarks.front as module
from benchmarks.latency.timing import load_model
from bhvit_seg.inference.torch_predictor import TorchPredictor
from bhvit_seg.training.config import load_config

DATA = """
loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler'))
pipeline = [dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations'),
            dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(type='RSLVFDataset', data_root={root!r}, pipeline=pipeline,
    data_prefix=dict(img_path='images/train', seg_map_path='annotations/train')), **loader)
val_dataloader = dict(dataset=dict(type='RSLVFDataset', data_root={root!r}, pipeline=pipeline,
    data_prefix=dict(img_path='images/val', seg_map_path='annotations/val')), **loader)
test_dataloader = val_dataloader
test_evaluator = dict(type='PerClassMetric')
"""


MODEL = """
custom_imports = dict(imports=['bhvit_seg.modules'])
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='MultiChannelSegDataPreProcessor', mean=[120.] * 3, std=[60.] * 3, bgr_to_rgb=True,
        test_cfg=dict(size_divisor=48)),
    backbone=dict(type='EfficientNetLite', arch='lite0'),
    decode_head=dict(
        type='TopDownHead', in_channels=[24, 40, 112, 320], in_index=[0, 1, 2, 3], channels=16,
        num_classes=2, norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
test_pipeline = [dict(type='LoadAerialImage'), dict(type='PackSegInputs')]
"""


@pytest.fixture
def lite(tiny_data, tmp_path):
    """Config and checkpoint of an EfficientNet-Lite of random weights."""
    config, checkpoint = tmp_path / 'lite.py', tmp_path / 'lite.pth'
    config.write_text(MODEL + DATA.format(root=str(tiny_data)))
    model = load_model(load_config(config), config, None)
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return config, checkpoint


@pytest.mark.parametrize('quantized', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_scores_of_engines_are_those_of_torch(quantized, engine, lite, tiny_data, tmp_path,
                                              monkeypatch):
    pytest.importorskip('nncf' if quantized else 'openvino')
    if not quantized:
        monkeypatch.delitem(module.ENGINES, 'OpenVINO int8')
    binary, checkpoint = write_experiment(tmp_path, classes=2)
    binary.write_text(binary.read_text() + DATA.format(root=str(tiny_data)))
    out = tmp_path / 'out'
    rows = [['--row', name, *map(str, row), str(tiny_data)] for name, row in (
        ('ours', (binary, checkpoint)), ('Lite', lite))]
    module.main([*sum(rows, []), '--size', '64', '--rounds', '1', '--seconds', '0.1',
                 '--out', str(out)])
    points = {(p['name'], p['engine']): p for p in json.loads(
        (out / 'front.json').read_text())['points']}
    assert set(points) == {('ours', 'packed'), *(('Lite', name) for name in module.ENGINES)}
    for name, engine, config, weights in (('ours', 'packed', binary, checkpoint),
                                          ('Lite', 'OpenVINO fp32', *lite)):
        predict = TorchPredictor(config, weights, 'cpu')
        found, truth = (np.stack(labels) for labels in zip(*(
            (predict(path), np.array(Image.open(
                tiny_data / 'annotations' / 'val' / path.name)))
            for path in sorted((tiny_data / 'images' / 'val').iterdir()))))
        for label, iou in enumerate(points[name, engine]['classes'].values()):
            both, either = (truth == label) & (found == label), (truth == label) | (found == label)
            assert iou == pytest.approx(100 * both.sum() / either.sum(), abs=0.5)
    assert all(point['images'] == 3 and 0 < point['min_ms'] <= point['median_ms']
               for point in points.values())
    with open(out / 'front.csv') as file:
        assert [row['metric'] for row in csv.DictReader(file)] == ['road IoU'] * len(points)
    assert points['Lite', 'OpenVINO fp32']['classes']['road'] > 1  # both classes occur
    for (name, engine), point in points.items():
        iou = list(point['classes'].values())[1]
        assert f'| {name} | {engine} | {iou:.1f} |' in (out / 'front.md').read_text()
    assert (out / 'front.png').read_bytes().startswith(b'\x89PNG')
